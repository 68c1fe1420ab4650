"""What a recipe says about single tokens, found in the models that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from hubmerge.merge.planned import PlannedModel
from hubmerge.merge.recipe import ModelToken, Source, TokenChoice, TokenizerChoice, ZeroToken
from hubmerge.tokenizer.align import Pick, TokenRule

NumberOf = Callable[[Source], int]


def tokenizer_sources(choice: TokenizerChoice) -> Iterator[Source]:
    """Yields the models that a recipe names for their tokenizer or for rows of tokens."""
    if not isinstance(choice.source, str):
        yield choice.source
    for token in choice.tokens.values():
        match token.source:
            case None | ZeroToken():
                pass
            case ModelToken(model=model):
                yield model
            case source:
                yield source


def token_rules(
    tokens: Mapping[str, TokenChoice],
    number_of: NumberOf,
    models: Sequence[PlannedModel],
    ids: Sequence[Mapping[str, int]],
) -> tuple[dict[str, TokenRule], list[tuple[str, str]]]:
    """Returns the rules for tokens, and place in the recipe and sentence of each that cannot be followed.

    Args:
        tokens: As the recipe has them.
        number_of: Gives a source's place in `models`.
        models: Whatever the recipe names.
        ids: The tokens of each.
    """
    rules: dict[str, TokenRule] = {}
    problems: list[tuple[str, str]] = []
    for token, choice in tokens.items():
        picks = _picks(token, choice, number_of, ids)
        if isinstance(picks, int):
            wanted = choice.source.token if isinstance(choice.source, ModelToken) else token
            problems.append((f'tokenizer.tokens["{token}"]', f"{models[picks].label} has no token {wanted}"))
        else:
            rules[token] = TokenRule(picks, choice.force)
    return rules, problems


def _picks(
    token: str, choice: TokenChoice, number_of: NumberOf, ids: Sequence[Mapping[str, int]]
) -> tuple[Pick, ...] | int | None:
    """Returns the rows of a token's source, None for the usual rule, or the number of the model that lacks it."""
    match choice.source:
        case None:
            return None
        case ZeroToken():
            return ()
        case ModelToken(model=model, token=wanted, token_id=token_id):
            number = number_of(model)
            row = token_id if token_id is not None else ids[number].get(wanted or "")
        case source:
            number = number_of(source)
            row = ids[number].get(token)
    return number if row is None else ((number, row),)
