"""Which elements of each task vector are kept: the largest, a band of magnitudes, or a random choice.

A sparsifier looks at whole task vectors and returns, for each, a function that clears what is not kept in one block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import Tensor

from hubmerge.merge.methods.gram import task_vectors
from hubmerge.merge.methods.masks import keep_random, mask_key
from hubmerge.merge.methods.method import Block, Operands, Settings
from hubmerge.merge.methods.selection import Cut, Query, find_cuts, keep_largest

NEGLIGIBLE_SUM = 1e-7
"""Sums of magnitudes below this are not restored: the task vector is zero, or nothing of it is kept."""


class Keep(Protocol):
    """Clears the elements of one block of a task vector that are not kept, in place."""

    def __call__(self, values: Tensor, block: Block, /) -> Tensor:
        """Returns the same tensor."""


Sparsifier = Callable[[Operands, Settings], list[Keep]]


@dataclass(frozen=True)
class Band:
    """Elements of a task vector by descending magnitude: the first `skipped` are dropped, the next `kept` are kept."""

    skipped: int
    kept: int

    @property
    def stop(self) -> int:
        """Rank of the last element kept."""
        return self.skipped + self.kept


def keep_all(values: Tensor, _block: Block, /) -> Tensor:
    """Keeps every element."""
    return values


def keep_none(values: Tensor, _block: Block, /) -> Tensor:
    """Clears every element."""
    return values.zero_()


def whole(_operands: Operands, settings: Settings) -> list[Keep]:
    """Keeps everything, whatever the density."""
    return [keep_all for _ in settings.inputs]


def by_magnitude(operands: Operands, settings: Settings) -> list[Keep]:
    """Keeps the share `density` of largest magnitude, at least one element of it."""
    elements = math.prod(operands.shape)
    return _keep_bands(operands, [_largest_band(elements, density) for density in settings.column("density")])


def without_outliers(operands: Operands, settings: Settings) -> list[Keep]:
    """Drops the share `gamma` of largest magnitude and keeps the share `density` that follows."""
    elements = math.prod(operands.shape)
    pairs = zip(settings.column("density"), settings.column("gamma"), strict=True)
    return _keep_bands(operands, [_inner_band(elements, density, gamma) for density, gamma in pairs])


def by_chance(operands: Operands, settings: Settings) -> list[Keep]:
    """Keeps each element with probability `density`."""
    return [_chance(operands, index, density) for index, density in enumerate(settings.column("density"))]


def l1_ratios(operands: Operands, keeps: Sequence[Keep]) -> list[float]:
    """Returns Σ|δ| / Σ|kept| of each task vector, added up in fp64 over the blocks; 1 where a sum is negligible."""
    before, after = [0.0] * len(keeps), [0.0] * len(keeps)
    for block in operands.blocks:
        for index, (delta, keep) in enumerate(zip(task_vectors(operands.load(block)), keeps, strict=True)):
            before[index] += delta.abs_().sum().item()
            after[index] += keep(delta, block).sum().item()
    return [old / new if min(old, new) >= NEGLIGIBLE_SUM else 1.0 for old, new in zip(before, after, strict=True)]


def _largest_band(elements: int, density: float) -> Band:
    if density >= 1:
        return Band(0, elements)
    return Band(0, max(1, int(density * elements)) if density > 0 else 0)


def _inner_band(elements: int, density: float, gamma: float) -> Band:
    if density >= 1:
        return Band(0, elements)
    kept = int(density * elements)
    return Band(min(int(gamma * elements), elements - kept), kept)


def _keep_bands(operands: Operands, bands: Sequence[Band]) -> list[Keep]:
    elements = math.prod(operands.shape)
    queries = [
        Query(index, rank)
        for index, band in enumerate(bands)
        for rank in (band.skipped, band.stop)
        if band.kept and 0 < rank < elements
    ]
    cuts = find_cuts(operands, _magnitudes, queries) if queries else {}
    return [_band_keeper(index, band, cuts) for index, band in enumerate(bands)]


def _magnitudes(tensors: list[Tensor], _block: Block) -> list[Tensor]:
    return [delta.abs_() for delta in task_vectors(tensors)]


def _band_keeper(index: int, band: Band, cuts: Mapping[Query, Cut]) -> Keep:
    inner, outer = cuts.get(Query(index, band.skipped)), cuts.get(Query(index, band.stop))
    if band.kept == 0:
        return keep_none
    return partial(_keep_band, inner=inner, outer=outer) if inner or outer else keep_all


def _keep_band(values: Tensor, block: Block, *, inner: Cut | None, outer: Cut | None) -> Tensor:
    outliers = keep_largest(values.clone(), block, cut=inner) if inner else None
    if outer:
        keep_largest(values, block, cut=outer)
    return values if outliers is None else values.sub_(outliers)


def _chance(operands: Operands, index: int, density: float) -> Keep:
    if density >= 1:
        return keep_all
    if density <= 0:
        return keep_none
    return partial(keep_random, key=mask_key(operands.seed, operands.name, index), probability=density)
