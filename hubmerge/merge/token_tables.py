"""The tensors that have a row for each token: which they are, and the expressions that re-index them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hubmerge.merge.expr import RemapRows
from hubmerge.merge.layers import role
from hubmerge.merge.planned import PlannedModel, PlannedTensor, is_head
from hubmerge.merge.row_map import row_map
from hubmerge.tokenizer.align import Pick, Rows, TokenRule, align
from hubmerge.weights.dtypes import is_float


@dataclass(frozen=True)
class Reindexing:
    """A vocabulary, and where its rows come from.

    Attributes:
        vocabulary: Every token of the result and its id.
        size: Rows of the result; those that no token has are the mean of the others.
        models: Whoever gives rows; those that are merged come first.
        ids: Tokens of each, and their ids.
        input_count: How many of the models are merged.
        base: Place of the recipe's base model; None if it has none.
        rules: What the recipe says about single tokens.
    """

    vocabulary: Mapping[str, int]
    size: int
    models: Sequence[PlannedModel]
    ids: Sequence[Mapping[str, int]]
    input_count: int
    base: int | None
    rules: Mapping[str, TokenRule]


def token_tables(model: PlannedModel) -> dict[str, PlannedTensor]:
    """Returns the tensors of a model that have a row, or of a bias an element, for each token."""
    floats = {name: tensor for name, tensor in model.tensors.items() if is_float(tensor.dtype)}
    embeds = {name: t for name, t in floats.items() if role(name, model.layers) == "embed" and len(t.shape) == 2}
    sizes = {tensor.shape[0] for tensor in embeds.values()}
    return {
        name: tensor
        for name, tensor in floats.items()
        if name in embeds or (_is_head(name, tensor, model) and row_count(tensor) in sizes)
    }


def main_table(model: PlannedModel) -> PlannedTensor | None:
    """Returns the table whose rows are a model's vocabulary, the first embedding; None if it has none."""
    return next((t for name, t in token_tables(model).items() if role(name, model.layers) == "embed"), None)


def row_count(table: PlannedTensor) -> int:
    """Returns how many tokens a table has; a bias of shape (1, n) has one in each element."""
    return table.shape[1] if _is_flat(table) else table.shape[0]


def cut_tables(model: PlannedModel, rows: int) -> dict[str, PlannedTensor]:
    """Returns the tables that are as long as the model's main one, cut to their first rows."""
    main = main_table(model)
    tables = token_tables(model).values()
    index = row_map([((0, row),) for row in range(rows)])
    return {
        table.name: _resized(table, RemapRows((table.expr,), index, _shape(table, rows)))
        for table in tables
        if main is not None and row_count(table) == row_count(main)
    }


def reindexed_tables(reindexing: Reindexing, own: int) -> dict[str, PlannedTensor]:
    """Returns the token tables of model number `own` with the rows of the vocabulary; those that need no change too.

    Where models that do not tie head and embedding are merged with it, a tied one's head becomes a table of its own:
    the rows that it lacks are then those of heads.
    """
    made: dict[tuple[int, ...], Sequence[tuple[Pick, ...] | None]] = {}
    result: dict[str, PlannedTensor] = {}
    for name, table in {**token_tables(reindexing.models[own]), **_tied_heads(reindexing, own)}.items():
        counterparts = [_counterpart(model, table) for model in reindexing.models]
        counts = tuple(0 if other is None else row_count(other) for other in counterparts)
        if counts not in made:
            made[counts] = picks(reindexing, counts, own)
        result[name] = _reindexed(table, made[counts], counterparts, own)
    return result


def _tied_heads(reindexing: Reindexing, own: int) -> dict[str, PlannedTensor]:
    """Returns the heads that model number `own` has by its tie alone, and others that are merged have stored."""
    model, inputs = reindexing.models[own], reindexing.models[: reindexing.input_count]
    stored = dict.fromkeys(name for other in inputs for name in token_tables(other) if is_head(name, other.layers))
    found = {name: model.find(name) for name in stored if name not in model.tensors}
    return {name: replace(table, name=name) for name, table in found.items() if table is not None}


def picks(reindexing: Reindexing, counts: Sequence[int], own: int) -> list[tuple[Pick, ...] | None]:
    """Returns the picks of every row of a table that has so many rows in each model."""
    models = [
        Rows(ids, count, is_input=number < reindexing.input_count)
        for number, (ids, count) in enumerate(zip(reindexing.ids, counts, strict=True))
    ]
    rules = {
        token: rule if all(row < counts[number] for number, row in rule.picks or ()) else replace(rule, picks=None)
        for token, rule in reindexing.rules.items()
    }
    return align(reindexing.vocabulary, reindexing.size, models, own=own, base=reindexing.base, rules=rules)


def _is_head(name: str, tensor: PlannedTensor, model: PlannedModel) -> bool:
    is_matrix_or_vector = len(tensor.shape) in (1, 2)
    return is_matrix_or_vector and (role(name, model.layers) == "head" or name.endswith("logits_bias"))


def _counterpart(model: PlannedModel, table: PlannedTensor) -> PlannedTensor | None:
    """Returns the same table of another model, if its rows are as long."""
    found = model.find(table.name)
    fits = found is not None and len(found.shape) == len(table.shape) and _row_length(found) == _row_length(table)
    return found if fits else None


def _reindexed(
    table: PlannedTensor,
    rows: Sequence[tuple[Pick, ...] | None],
    counterparts: Sequence[PlannedTensor | None],
    own: int,
) -> PlannedTensor:
    if len(rows) == row_count(table) and all(row == ((own, place),) for place, row in enumerate(rows)):
        return table
    used = sorted(dict.fromkeys(number for row in rows for number, _ in row or ()))
    numbers = {number: place for place, number in enumerate(used)}
    index = row_map([None if row is None else [(numbers[number], place) for number, place in row] for row in rows])
    inputs = tuple(other.expr for number in used if (other := counterparts[number]) is not None)
    return _resized(table, RemapRows(inputs or (table.expr,), index, _shape(table, len(rows))))


def _resized(table: PlannedTensor, expr: RemapRows) -> PlannedTensor:
    return replace(table, shape=expr.shape, expr=expr)


def _shape(table: PlannedTensor, rows: int) -> tuple[int, ...]:
    return (1, rows) if _is_flat(table) else (rows, *table.shape[1:])


def _row_length(table: PlannedTensor) -> int:
    return math.prod(table.shape) // max(1, row_count(table))


def _is_flat(table: PlannedTensor) -> bool:
    return len(table.shape) == 2 and table.shape[0] == 1
