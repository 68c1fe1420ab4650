"""Which row each token of a vocabulary takes from which model: its own, or what stands in for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Pick = tuple[int, int]
"""(number of the model, row of its tensor)."""


@dataclass(frozen=True)
class Rows:
    """A model's rows of one tensor, by token.

    Attributes:
        ids: The model's tokens.
        count: Rows of the tensor; 0 if the model lacks it. Tokens beyond have no row.
        is_input: Whether the model is merged, or only named for its tokenizer.
    """

    ids: Mapping[str, int]
    count: int
    is_input: bool

    def row(self, token: str) -> int | None:
        """Returns the row of a token, or None if it has none."""
        number = self.ids.get(token)
        return number if number is not None and number < self.count else None


@dataclass(frozen=True)
class TokenRule:
    """What a recipe says about one token's embedding.

    Attributes:
        picks: What stands in for it, none for zeros; None for the usual rule.
        force: Whether it also takes the place of the rows that models have.
    """

    picks: tuple[Pick, ...] | None
    force: bool


def align(
    vocabulary: Mapping[str, int],
    size: int,
    models: Sequence[Rows],
    *,
    own: int,
    base: int | None,
    rules: Mapping[str, TokenRule],
) -> list[tuple[Pick, ...] | None]:
    """Returns the picks of each of `size` rows for model number `own`; None for rows that no token has.

    A row is the model's own row of the token; of a token that it lacks, the mean of `stand_in`'s picks.
    """
    result: list[tuple[Pick, ...] | None] = [None] * size
    for token, number in vocabulary.items():
        rule = rules.get(token)
        row = models[own].row(token)
        if row is not None and not (rule and rule.force):
            result[number] = ((own, row),)
        elif rule and rule.picks is not None:
            result[number] = rule.picks
        else:
            result[number] = stand_in(token, models, base=base)
    return result


def stand_in(token: str, models: Sequence[Rows], *, base: int | None) -> tuple[Pick, ...]:
    """Returns the rows whose mean serves models that lack a token.

    That is the only model's that has it, else the base's, else those of all that have it. Models that are not merged
    count where no other has it, the first of them alone. Empty if nobody has it.
    """
    picks = [(number, row) for number, rows in enumerate(models) if (row := rows.row(token)) is not None]
    inputs = tuple(pick for pick in picks if models[pick[0]].is_input)
    of_base = tuple(pick for pick in inputs if pick[0] == base)
    if not inputs:
        return tuple(picks[:1])
    return of_base or inputs
