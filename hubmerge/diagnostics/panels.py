"""Which heat maps show a merge: each a grid of roles, or models, by layers; drawn by `heat_map` and on the terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations

import numpy as np

from hubmerge.diagnostics.diagnostics import Cell, Diagnostics
from hubmerge.diagnostics.roles import OUTSIDE, ROLES
from hubmerge.diagnostics.statistics import (
    Matrix,
    add_up,
    cosines,
    kept_shares,
    relative_norms,
    sign_conflict,
    task_vector_cosines,
)

SINGLE_MODELS = 4
"""Models with a panel of roles each; more of them share one panel, a row each."""

SINGLE_PAIRS = 3
"""Pairs of models with a panel each; of more, the mean is shown."""

LONGEST_NAME = 28
LONGEST_OF_TWO = 21
"""Characters of a model's name in a title, and of each where there are two."""

Value = Callable[[Cell], float | None]


class Scale(Enum):
    """How numbers become colours."""

    LEVEL = "from the least to the greatest"
    AROUND_ZERO = "both ways from zero"


@dataclass(frozen=True, eq=False)
class Panel:
    """One heat map.

    Attributes:
        legend: What the colours measure.
        rows: Names, top to bottom.
        values: `(rows, layers)`; nan where there is nothing.
        embed: `(rows,)`: of the embedding, likewise; and of the head.
        least_span: Numbers that the colours span at least, so that noise does not look like structure.
    """

    title: str
    legend: str
    rows: tuple[str, ...]
    values: Matrix
    embed: Matrix
    head: Matrix
    scale: Scale = Scale.LEVEL
    least_span: tuple[float, float] | None = None

    @property
    def numbers(self) -> Matrix:
        """Returns all that is known, in one dimension."""
        everything = np.concatenate([self.values.ravel(), self.embed, self.head])
        known: Matrix = everything[~np.isnan(everything)]
        return known

    @property
    def limits(self) -> tuple[float, float]:
        """Returns the numbers at both ends of the colours."""
        known = [*self.numbers.tolist(), *(self.least_span or ())]
        low, high = min(known), max(known)
        if self.scale is Scale.AROUND_ZERO:
            bound = max(abs(low), abs(high))
            return -bound, bound
        margin = max(abs(high) * 1e-3, 1e-6)
        return (low, high) if high - low > margin else (low - margin, high + margin)


def panels(diagnostics: Diagnostics) -> tuple[Panel, ...]:
    """Returns the panels that make sense for the merge, in reading order; none if nothing was compared."""
    cells = [cell for cell in diagnostics.cells if cell.sums.models > 1]
    based = [cell for cell in cells if cell.has_base]
    baseless = [cell for cell in cells if not cell.has_base]
    grid = _Grid(diagnostics.layer_count)
    conflicts = grid.by_role(based, _conflict, "Sign conflict beyond chance", "share of elements", Scale.AROUND_ZERO)
    shares = grid.by_role(cells, _kept, "Kept of the task vectors", "share of elements")
    found = [
        *_on_one_scale(_norms(based, grid)),
        *_on_one_scale(_norms(baseless, grid)),
        *_spanning(_angles(baseless, grid), None),
        *_spanning(_angles(based, grid), (-0.25, 0.25)),
        *_spanning(conflicts, (-0.1, 0.1)),
        *_spanning(shares, (0.0, 1.0)),
    ]
    return tuple(panel for panel in found if panel.numbers.size)


def short(name: str, *, longest: int = LONGEST_NAME) -> str:
    """Returns a model's name as it fits a title."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _pair_title(one: str, other: str, joined_by: str) -> str:
    return f"{short(one, longest=LONGEST_OF_TWO)} {joined_by} {short(other, longest=LONGEST_OF_TWO)}"


def _spanning(found: Sequence[Panel], span: tuple[float, float] | None) -> list[Panel]:
    return [replace(panel, least_span=span) for panel in found]


def _on_one_scale(found: Sequence[Panel]) -> list[Panel]:
    """Returns the panels with the same colours for the same numbers, which begin at zero."""
    return _spanning(found, (0.0, max((float(panel.numbers.max(initial=0)) for panel in found), default=0.0)))


@dataclass(frozen=True)
class _Grid:
    """Places cells' values by row and layer."""

    layer_count: int

    def by_role(
        self, cells: Sequence[Cell], value: Value, title: str, legend: str, scale: Scale = Scale.LEVEL
    ) -> list[Panel]:
        """Returns a panel with a row for each role that layers have; the embedding and the head fill whole columns."""
        present = {cell.role for cell in cells if cell.layer is not None}
        rows = [role for role in ROLES if role in present]
        if not rows:
            return []
        values = np.full((len(rows), self.layer_count), math.nan)
        outside = dict.fromkeys(OUTSIDE, math.nan)
        for cell in cells:
            number = _or_nan(value(cell))
            if cell.layer is not None:
                values[rows.index(cell.role), cell.layer] = number
            elif cell.role in outside:
                outside[cell.role] = number
        embed, head = (np.full(len(rows), outside[role]) for role in OUTSIDE)
        return [Panel(title, legend, tuple(rows), values, embed, head, scale)]

    def by_model(self, cells: Sequence[Cell], names: Sequence[str], title: str, legend: str) -> list[Panel]:
        """Returns a panel with a row for each model: the length of its difference, all roles together."""
        values = np.full((len(names), self.layer_count), math.nan)
        outside = {role: np.full(len(names), math.nan) for role in OUTSIDE}
        for cell in _without_roles(cells):
            column = values[:, cell.layer] if cell.layer is not None else outside.get(cell.role)
            if column is not None:
                column[:] = [_or_nan(_norm(name)(cell)) for name in names]
        return [Panel(title, legend, tuple(map(short, names)), values, outside["embed"], outside["head"])]


def _norms(cells: Sequence[Cell], grid: _Grid) -> list[Panel]:
    names = list(dict.fromkeys(name for cell in cells for name in cell.models[1:]))
    if not names:
        return []
    is_based = cells[0].has_base
    legend = "norm relative to the base" if is_based else "norm relative to the first"
    if len(names) > SINGLE_MODELS:
        title = "Task vectors, all roles" if is_based else f"Differences from {short(cells[0].models[0])}, all roles"
        return grid.by_model(cells, names, title, legend)
    found = []
    for name in names:
        own = [cell for cell in cells if name in cell.models[1:]]
        title = f"Task vector of {short(name)}" if is_based else _pair_title(name, own[0].models[0], "from")
        found += grid.by_role(own, _norm(name), title, legend)
    return found


def _angles(cells: Sequence[Cell], grid: _Grid) -> list[Panel]:
    if not cells:
        return []
    is_based = cells[0].has_base
    scale, legend = (Scale.AROUND_ZERO, "cosine of task vectors") if is_based else (Scale.LEVEL, "cosine of weights")
    pairs = list(dict.fromkeys(pair for cell in cells for pair in combinations(_turned(cell), 2)))
    if len(pairs) > SINGLE_PAIRS:
        return grid.by_role(cells, _mean_cosine, f"Direction, mean of {len(pairs)} pairs", legend, scale)
    found = []
    for one, other in pairs:
        own = [cell for cell in cells if {one, other} <= set(_turned(cell))]
        found += grid.by_role(own, _cosine(one, other), _pair_title(one, other, "and"), legend, scale)
    return found


def _turned(cell: Cell) -> tuple[str, ...]:
    """Returns the models whose directions are compared: with a base, those of the task vectors."""
    return cell.models[1:] if cell.has_base else cell.models


def _cosines(cell: Cell) -> Matrix:
    return task_vector_cosines(cell.sums) if cell.has_base else cosines(cell.sums)


def _norm(name: str) -> Value:
    return lambda cell: relative_norms(cell.sums)[cell.models.index(name, 1) - 1] if name in cell.models[1:] else None


def _cosine(one: str, other: str) -> Value:
    def value(cell: Cell) -> float:
        names = _turned(cell)
        return float(_cosines(cell)[names.index(one), len(names) - 1 - names[::-1].index(other)])

    return value


def _mean_cosine(cell: Cell) -> float | None:
    matrix = _cosines(cell)
    values = matrix[np.triu_indices(len(matrix), 1)]
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _conflict(cell: Cell) -> float | None:
    conflict = sign_conflict(cell.sums)
    return None if conflict is None else conflict.rate - conflict.chance


def _kept(cell: Cell) -> float | None:
    shares = [share for share in kept_shares(cell.sums) or () if share is not None]
    return statistics.fmean(shares) if shares else None


def _without_roles(cells: Iterable[Cell]) -> list[Cell]:
    """Returns the cells with all matrices of a layer added up."""
    groups: dict[tuple[int | None, str, tuple[str, ...]], list[Cell]] = {}
    for cell in cells:
        if cell.role != "norm":
            kind = cell.role if cell.layer is None else "layer"
            groups.setdefault((cell.layer, kind, cell.models), []).append(cell)
    return [
        Cell(layer, kind, models, group[0].has_base, add_up(cell.sums for cell in group))
        for (layer, kind, models), group in groups.items()
    ]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
