"""Which elements of each task vector are kept: the largest, a band of magnitudes, or a random choice.

A sparsifier looks at whole task vectors and returns, for each, a `Keep` that clears what is not kept in one block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hubmerge.lazy_torch import torch
from hubmerge.merge.methods.gram import task_vectors
from hubmerge.merge.methods.masks import MaskKey, keep_random, lane_limit, mask_key
from hubmerge.merge.methods.method import Block, Floats, Operands, Settings
from hubmerge.merge.methods.selection import Cut, Query, count_all, find_cuts, find_equal, keep_largest
from hubmerge.merge.native import kernels
from hubmerge.merge.native.kernels import Bounds, Counts, Rule

if TYPE_CHECKING:
    from torch import Tensor

NEGLIGIBLE_SUM = 1e-7
"""Sums of magnitudes below this are not restored: the task vector is zero, or nothing of it is kept."""


class Keep(Protocol):
    """What is kept of a task vector."""

    def __call__(self, values: Tensor, block: Block, /) -> Tensor:
        """Clears the elements of one block that are not kept, in place, and returns the same tensor."""

    def rule(self) -> Rule | None:
        """Returns the same for compiled kernels, None if they do not know it."""


Sparsifier = Callable[[Operands, Settings], list[Keep]]


@dataclass(frozen=True)
class KeepAll:
    """Keeps every element."""

    def __call__(self, values: Tensor, _block: Block, /) -> Tensor:
        """Changes nothing."""
        return values

    def rule(self) -> Rule:
        """Returns the rule for compiled kernels."""
        return Rule(kernels.KEEP_ALL)


@dataclass(frozen=True)
class KeepNone:
    """Clears every element."""

    def __call__(self, values: Tensor, _block: Block, /) -> Tensor:
        """Clears the block."""
        return values.zero_()

    def rule(self) -> Rule:
        """Returns the rule for compiled kernels."""
        return Rule(kernels.KEEP_NONE)


@dataclass(frozen=True)
class KeepBand:
    """Keeps what is among the largest magnitudes by `outer`, or all if that is None, but not by `inner`."""

    inner: Cut | None
    outer: Cut | None

    def __call__(self, values: Tensor, block: Block, /) -> Tensor:
        """Clears what is outside of the band."""
        outliers = keep_largest(values.clone(), block, cut=self.inner) if self.inner else None
        if self.outer:
            keep_largest(values, block, cut=self.outer)
        return values if outliers is None else values.sub_(outliers)

    def rule(self) -> Rule:
        """Returns the rule for compiled kernels."""
        inner, outer = (kernels.Cut(cut.threshold, cut.ties_stop) if cut else None for cut in (self.inner, self.outer))
        return Rule(kernels.KEEP_BAND, bool(inner), bool(outer), inner or kernels.Cut(), outer or kernels.Cut())


@dataclass(frozen=True)
class KeepRandom:
    """Keeps each element with a probability, which lies in [0, 1)."""

    key: MaskKey
    probability: float

    def __call__(self, values: Tensor, block: Block, /) -> Tensor:
        """Multiplies by the random mask."""
        return keep_random(values, block, key=self.key, probability=self.probability)

    def rule(self) -> Rule:
        """Returns the rule for compiled kernels."""
        limit = lane_limit(self.probability)
        return Rule(kernels.KEEP_RANDOM, first_key=self.key.first, second_key=self.key.second, lane_limit=limit)


@dataclass(frozen=True)
class Band:
    """Elements of a task vector by descending magnitude: the first `skipped` are dropped, the next `kept` are kept."""

    skipped: int
    kept: int

    @property
    def stop(self) -> int:
        """Rank of the last element kept."""
        return self.skipped + self.kept


def whole(_operands: Operands, settings: Settings) -> list[Keep]:
    """Keeps everything, whatever the density."""
    return [KeepAll() for _ in settings.inputs]


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
    """Returns Σ|δ| / Σ|kept| of each task vector, added up in fp64; 1 where a sum is negligible."""
    rules = rules_of(keeps)
    before, after = (
        [math.fsum(column) for column in zip(*sums, strict=True)]
        for sums in zip(*(_l1_sums(operands, keeps, rules, block) for block in operands.blocks), strict=True)
    )
    return [old / new if min(old, new) >= NEGLIGIBLE_SUM else 1.0 for old, new in zip(before, after, strict=True)]


def rules_of(keeps: Sequence[Keep]) -> list[Rule] | None:
    """Returns the rules for compiled kernels, None if one of them has none."""
    rules = [rule for keep in keeps if (rule := keep.rule())]
    return rules if len(rules) == len(keeps) else None


@dataclass(frozen=True)
class Magnitudes:
    """The magnitudes of every task vector, to select from."""

    operands: Operands

    def values(self, block: Block) -> Sequence[Floats]:
        """Returns the |δᵢ| of a block."""
        stored = self.operands.stored(block)
        if stored is not None:
            return kernels.magnitudes(stored)
        return [delta.numpy(force=True) for delta in self._of(block)]

    def count(self, block: Block, bounds: Sequence[Bounds]) -> Sequence[Counts]:
        """Returns what the bounds find in a block."""
        stored = self.operands.stored(block)
        if stored is not None:
            return kernels.tally(stored, bounds)
        return count_all(self._of(block), bounds)

    def find(self, block: Block, series: int, value: float, number: int) -> int:
        """Returns the place in a block of element `number` of those whose |δᵢ| is a value."""
        stored = self.operands.stored(block)
        if stored is not None:
            return kernels.find(stored[0], stored[1 + series], value, number)
        return find_equal(self.values(block)[series], value, number)

    def _of(self, block: Block) -> list[Tensor]:
        return [delta.abs_() for delta in task_vectors(self.operands.load(block))]


def _l1_sums(
    operands: Operands, keeps: Sequence[Keep], rules: Sequence[Rule] | None, block: Block
) -> tuple[list[float], list[float]]:
    """Returns Σ|δ| and Σ|kept| of each task vector in one block."""
    stored = operands.stored(block) if rules else None
    if rules and stored:
        return kernels.l1_sums(stored, rules, first=block.start)
    deltas = [delta.abs_() for delta in task_vectors(operands.load(block))]
    before = [_sum(delta) for delta in deltas]
    return before, [_sum(keep(delta, block)) for delta, keep in zip(deltas, keeps, strict=True)]


def _sum(values: Tensor) -> float:
    return values.sum(dtype=torch.float64).item()


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
    cuts = find_cuts(operands, Magnitudes(operands), queries) if queries else {}
    return [_band_keeper(index, band, cuts) for index, band in enumerate(bands)]


def _band_keeper(index: int, band: Band, cuts: Mapping[Query, Cut]) -> Keep:
    inner, outer = cuts.get(Query(index, band.skipped)), cuts.get(Query(index, band.stop))
    if band.kept == 0:
        return KeepNone()
    return KeepBand(inner, outer) if inner or outer else KeepAll()


def _chance(operands: Operands, index: int, density: float) -> Keep:
    if density >= 1:
        return KeepAll()
    if density <= 0:
        return KeepNone()
    return KeepRandom(mask_key(operands.seed, operands.name, index), density)
