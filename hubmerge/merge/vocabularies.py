"""The models of a recipe, brought to one vocabulary: their token tables re-indexed, their configs following.

What comes out are models like any other, so that nothing after this knows that tokens exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hubmerge.errors import SourceError
from hubmerge.merge.planned import PlannedModel, PlannedTensor, PlannedTokenizer, is_head
from hubmerge.merge.recipe import Recipe, Source, TokenizerChoice
from hubmerge.merge.token_rules import token_rules, tokenizer_sources
from hubmerge.merge.token_tables import (
    Reindexing,
    cut_tables,
    main_table,
    picks,
    reindexed_tables,
    row_count,
    token_tables,
)
from hubmerge.tokenizer import Tokenizer
from hubmerge.tokenizer.renumber import renumbered, resized, translation
from hubmerge.tokenizer.unite import Additions, added_flags, extend, unite

SHOWN_TOKENS = 5

UNION_HINT = (
    "The models have different vocabularies. To merge them token by token, add this line to the recipe: "
    "tokenizer: {source: union}"
)

ModelOf = Callable[[Source], PlannedModel]
TokenizerOf = Callable[[PlannedModel], Tokenizer | None]


@dataclass(frozen=True)
class Aligned:
    """Models with equal vocabularies.

    Attributes:
        models: What takes the place of a model, by the `id()` of the latter; other models stay as they are.
        notes: What a reader should know, one sentence each.
        problems: Why it cannot be done: place in the recipe and sentence.
        hint: What to do if the models then do not fit together.
    """

    models: Mapping[int, PlannedModel]
    notes: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    hint: str | None = None


@dataclass(frozen=True)
class _Pool:
    """Every model that gives rows, those that are merged first.

    Attributes:
        tokenizers: One for each model; a model without one is taken to have that of `start`.
        input_count: How many are merged.
        start: Place of the model whose ids the result has.
        base: Place of the recipe's base model; None if it has none.
        lacking: Labels of the models without a tokenizer.
    """

    models: Sequence[PlannedModel]
    tokenizers: Sequence[Tokenizer]
    input_count: int
    start: int
    base: int | None
    lacking: Sequence[str]


def align_models(recipe: Recipe, model_of: ModelOf, tokenizer_of: TokenizerOf) -> Aligned:
    """Returns the models of a recipe as they are merged: with the vocabulary that it asks for, or as far as all go.

    Raises:
        SourceError: A tokenizer is needed and cannot be read.
    """
    inputs = distinct(map(model_of, recipe.sources))
    choice = recipe.tokenizer
    if choice is None:
        return _on_common_rows(inputs, tokenizer_of)
    models = distinct([*inputs, *map(model_of, tokenizer_sources(choice))])
    is_plain = not choice.tokens and choice.pad_to_multiple_of is None
    if is_plain and _are_one_slow_tokenizer([tokenizer_of(model) for model in models]):
        return _on_common_rows(inputs, tokenizer_of)
    return _on_one_vocabulary(choice, _pool(recipe, choice, models, len(inputs), model_of, tokenizer_of), model_of)


def distinct(models: Iterable[PlannedModel]) -> list[PlannedModel]:
    """Returns the models in order, each once."""
    return list({id(model): model for model in models}.values())


def torn_vocabulary(result: PlannedModel, donor: PlannedModel) -> tuple[str, str] | None:
    """Returns tensor and sentence if slices gave an embedding and a head of different length, as the donor has not."""
    embed = main_table(result)
    heads = [name for name in result.tensors if is_head(name, result.layers) and name in token_tables(donor)]
    for name in heads:
        rows = row_count(result.tensors[name])
        if embed is not None and rows != row_count(embed):
            return name, f"has {rows} rows, but {embed.name} has {row_count(embed)}"
    return None


def _on_common_rows(models: Sequence[PlannedModel], tokenizer_of: TokenizerOf) -> Aligned:
    """Cuts off the padding that some models have behind the same tokens; says where tokens are not the same."""
    rows = {id(model): row_count(table) for model in models if (table := main_table(model)) is not None}
    if len(set(rows.values())) < 2:
        return Aligned({}, tuple(_other_token_notes([model for model in models if id(model) in rows], tokenizer_of)))
    least = min(rows.values())
    if not _are_equal([tokenizer_of(model) for model in models], fit_in=least):
        return Aligned({}, hint=UNION_HINT)
    longer = [model for model in models if rows.get(id(model), least) > least]
    sizes = ", ".join(f"{rows[id(model)]} rows in {model.label}" for model in longer)
    note = (
        f"the tokenizers are the same, but embeddings are padded ({sizes}); the {least} rows that all have are merged"
    )
    return Aligned({id(model): _with_tables(model, cut_tables(model, least)) for model in longer}, notes=(note,))


def _pool(
    recipe: Recipe,
    choice: TokenizerChoice,
    models: Sequence[PlannedModel],
    input_count: int,
    model_of: ModelOf,
    tokenizer_of: TokenizerOf,
) -> _Pool:
    start = model_of(recipe.donor if isinstance(choice.source, str) else choice.source)
    own = tokenizer_of(start)
    if own is None:
        raise SourceError(
            f"{start.label} has no tokenizer, and the recipe wants the result to have its vocabulary",
            hint="Name a model with a tokenizer: tokenizer: {source: org/name}",
        )
    found = [tokenizer_of(model) for model in models]
    return _Pool(
        models=models,
        tokenizers=[tokenizer or own for tokenizer in found],
        input_count=input_count,
        start=_place(start, models),
        base=None if recipe.base_model is None else _place(model_of(recipe.base_model), models),
        lacking=[model.label for model, tokenizer in zip(models, found, strict=True) if tokenizer is None],
    )


def _on_one_vocabulary(choice: TokenizerChoice, pool: _Pool, model_of: ModelOf) -> Aligned:
    """Re-indexes the token tables of the models that are merged."""
    united = _united(pool) if choice.source == "union" else pool.tokenizers[pool.start]
    built = _with_tokens(united, choice, pool)
    ids = [tokenizer.ids for tokenizer in pool.tokenizers]
    rules, problems = token_rules(choice.tokens, lambda source: _place(model_of(source), pool.models), pool.models, ids)
    reindexing = Reindexing(
        vocabulary=built.ids,
        size=_rounded_up(max(built.ids.values(), default=-1) + 1, choice.pad_to_multiple_of or 1),
        models=pool.models,
        ids=ids,
        input_count=pool.input_count,
        base=pool.base,
        rules=rules,
    )
    planned = _planned(pool, built, is_union=choice.source == "union")
    moved = {id(pool.models[n]): _moved(reindexing, n, pool, planned) for n in range(pool.input_count)}
    kind_notes = _kind_notes(pool) if choice.source == "union" else ()
    notes = (*_lacking_notes(pool), *kind_notes, *_zero_notes(reindexing))
    return Aligned(moved, notes, tuple(problems))


def _united(pool: _Pool) -> Tokenizer:
    others = (tokenizer for n, tokenizer in enumerate(pool.tokenizers[: pool.input_count]) if n != pool.start)
    return unite(pool.tokenizers[pool.start], others)


def _with_tokens(built: Tokenizer, choice: TokenizerChoice, pool: _Pool) -> Tokenizer:
    """Returns a tokenizer that has every token which the recipe speaks of."""
    new = {token: added_flags(pool.tokenizers, token) for token in choice.tokens if token not in built.ids}
    return extend(built, Additions(added=new)) if new else built


def _planned(pool: _Pool, built: Tokenizer, *, is_union: bool) -> PlannedTokenizer:
    planned = pool.models[pool.start].tokenizer
    if built is pool.tokenizers[pool.start]:
        return planned
    known = pool.tokenizers[pool.start].ids
    givers = [
        parent
        for model, tokenizer in zip(pool.models[: pool.input_count], pool.tokenizers, strict=False)
        if is_union and any(token not in known for token in tokenizer.ids)
        for parent in model.tokenizer.parents
    ]
    return replace(planned, parents=tuple(dict.fromkeys((*planned.parents, *givers))), built=built)


def _moved(reindexing: Reindexing, number: int, pool: _Pool, planned: PlannedTokenizer) -> PlannedModel:
    """Returns a model as it would be if it had been trained with the new vocabulary."""
    model, start = pool.models[number], pool.models[pool.start]
    moved = _with_tables(model, reindexed_tables(reindexing, number))
    if model.tokenizer.parents[0] != start.tokenizer.parents[0]:
        translate = translation(reindexing.ids[number], reindexing.vocabulary)
        moved = replace(moved, config=renumbered(moved.config, start.config, translate))
    return replace(moved, tokenizer=planned)


def _with_tables(model: PlannedModel, tables: Mapping[str, PlannedTensor]) -> PlannedModel:
    """Returns a model with other token tables, its config's vocabulary sizes following."""
    sizes = {row_count(old): row_count(table) for name, table in tables.items() if (old := model.tensors.get(name))}
    return replace(model, tensors={**model.tensors, **tables}, config=resized(model.config, sizes))


def _other_token_notes(models: Sequence[PlannedModel], tokenizer_of: TokenizerOf) -> Iterator[str]:
    """Says which models have other tokens than the first for the same rows; reads only tokenizers that may differ."""
    known = [model.tokenizer.identity if model.tokenizer.built is None else None for model in models]
    if len(models) < 2 or (None not in known and len(set(known)) == 1):
        return
    first, *others = [(model.label, _tokens_by_id(model, tokenizer_of)) for model in models]
    for label, tokens in others:
        differing = [number for number, token in tokens.items() if first[1].get(number, token) != token]
        if differing:
            number = differing[0]
            shown = f"{number} is {first[1][number]} in {first[0]} and {tokens[number]} in {label}"
            yield (
                f"{len(differing)} ids mean other tokens in {label} than in {first[0]} ({shown}), and rows are merged "
                "by id; tokenizer: {source: union} merges them by token"
            )


def _tokens_by_id(model: PlannedModel, tokenizer_of: TokenizerOf) -> dict[int, str]:
    """Returns a model's tokens by their ids; none where there is nothing that could be compared."""
    try:
        tokenizer = tokenizer_of(model)
    except SourceError:  # a broken tokenizer is no reason to refuse a merge that does not need it
        return {}
    if tokenizer is None or tokenizer.backend is None:
        return {}
    return {number: token for token, number in tokenizer.ids.items()}


def _lacking_notes(pool: _Pool) -> Iterator[str]:
    name = pool.models[pool.start].label
    yield from (f"{label} has no tokenizer; it is taken to have that of {name}" for label in pool.lacking)


def _kind_notes(pool: _Pool) -> Iterator[str]:
    start, own = pool.models[pool.start].label, pool.tokenizers[pool.start].kind
    for model, tokenizer in zip(pool.models[: pool.input_count], pool.tokenizers, strict=False):
        if tokenizer.kind != own:
            yield (
                f"{model.label} has a {tokenizer.kind} tokenizer, {start} a {own} one: tokens that only the former has "
                "get rows, but texts are split as by the latter"
            )


def _zero_notes(reindexing: Reindexing) -> Iterator[str]:
    """Says which tokens no model has an embedding for, though the recipe does not ask for zeros."""
    counts = [row_count(table) if (table := main_table(model)) else 0 for model in reindexing.models]
    rows = picks(reindexing, counts, 0)
    tokens = [t for t, row in reindexing.vocabulary.items() if rows[row] == () and t not in reindexing.rules]
    if tokens:
        shown = ", ".join(tokens[:SHOWN_TOKENS]) + (", …" if len(tokens) > SHOWN_TOKENS else "")
        count = f"{len(tokens)} token{'s' * (len(tokens) > 1)}"
        yield f"no model has an embedding for {count} of the vocabulary, whose rows are zeros: {shown}"


def _are_one_slow_tokenizer(tokenizers: Sequence[Tokenizer | None]) -> bool:
    """Whether all are the same files without a tokenizer.json, so that no row has to move."""
    slow = [tokenizer for tokenizer in tokenizers if tokenizer is not None and tokenizer.backend is None]
    return len(slow) == len(tokenizers) and len({tokenizer.digest for tokenizer in slow}) == 1


def _are_equal(tokenizers: Sequence[Tokenizer | None], *, fit_in: int) -> bool:
    """Whether all are the same tokenizer, whose ids are below a number where they can be known."""
    known = [tokenizer for tokenizer in tokenizers if tokenizer is not None]
    if len(known) < len(tokenizers):
        return False
    if any(tokenizer.backend is None for tokenizer in known):
        return len({tokenizer.digest for tokenizer in known}) == 1
    first, *others = known
    return max(first.ids.values(), default=0) < fit_in and all(other.ids == first.ids for other in others)


def _place(model: PlannedModel, models: Sequence[PlannedModel]) -> int:
    return next(place for place, other in enumerate(models) if other is model)


def _rounded_up(number: int, step: int) -> int:
    return -(-number // step) * step
