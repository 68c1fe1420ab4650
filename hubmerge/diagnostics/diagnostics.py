"""What is known of a merge's weights, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hubmerge.diagnostics.statistics import Sums


@dataclass(frozen=True, eq=False)
class Cell:
    """The tensors of one role in one layer that are made from the same models.

    Attributes:
        layer: Of the result; None outside the layers.
        role: One of `roles.ROLES`.
        models: Their names, the reference first: the base, where the merge has one.
    """

    layer: int | None
    role: str
    models: tuple[str, ...]
    has_base: bool
    sums: Sums


@dataclass(frozen=True)
class NonFinite:
    """A tensor that was let pass although it holds NaN or infinity.

    Attributes:
        culprits: (model, number of such values in it); empty if they come from the merge itself.
        count: In the result.
        is_copied: Whether a model's tensor is only carried over, so that it is as good or bad as there.
    """

    tensor: str
    culprits: tuple[tuple[str, int], ...]
    count: int
    is_copied: bool


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """A merge as its statistics show it.

    Attributes:
        method: `merge_method` of the recipe.
        layer_count: Of the result.
        cells: In the order of the result's tensors.
        tensors: Of the result.
        merged: Of these, how many a merge makes; the others are carried over, converted or adapted.
        measured: Of the merged ones, how many the cells stand for.
        elements: Of the merged tensors.
        sampled: Of these elements, how many were looked at.
    """

    method: str
    layer_count: int
    cells: tuple[Cell, ...]
    tensors: int
    merged: int
    measured: int
    elements: int
    sampled: int
    non_finite: tuple[NonFinite, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that is compared with another, without repetition."""
        return tuple(dict.fromkeys(name for cell in self.cells for name in cell.models))


def gather(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Returns the cells with those of one layer, role and models added up, in order of their first appearance."""
    found: dict[tuple[int | None, str, tuple[str, ...]], Cell] = {}
    for cell in cells:
        key = cell.layer, cell.role, cell.models
        known = found.get(key)
        sums = cell.sums if known is None else known.sums + cell.sums
        found[key] = Cell(cell.layer, cell.role, cell.models, cell.has_base, sums)
    return tuple(found.values())
