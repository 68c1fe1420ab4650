"""The exact k-th largest element of a quantity that exists only block by block, without sorting it.

A sample of rows gives a bracket around the k-th largest. One pass over the blocks counts what lies above the bracket
and collects the few percent inside, among which the k-th is found exactly. If the bracket missed, a wider one is tried.

Differences of bf16 weights take few distinct values, so that a large share of a tensor can equal an end of the bracket.
Ends are therefore counted, never collected; what lies strictly between them is a small share, so memory stays small.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hubmerge.errors import MergeError
from hubmerge.lazy_torch import torch
from hubmerge.merge.methods.method import Block, Floats, Operands
from hubmerge.merge.native.kernels import Bounds, Counts

if TYPE_CHECKING:
    from torch import Tensor

SPANS = 64
"""Spans of rows in a sample. Fewer would say little about their spread; a tensor too small for so many is collected."""
SPAN_ELEMENTS = 2_048
"""Least elements of a span, where rows are shorter than that."""
SAMPLED_SHARE = 16
"""At most one row in this many is read for the sample, so that it costs 6 % of a pass."""
SAMPLE_ELEMENTS = 32_768
STANDARD_ERRORS = (4, 16, 64, math.inf)
"""Half-widths of the brackets tried one after the other."""

Measure = Callable[["list[Tensor]", Block], "Sequence[Tensor]"]
"""Makes the quantities to select from, one flat tensor each, from operands of whole rows, which it may overwrite."""


class Quantities(Protocol):
    """What to select from: one number or more for each element of a tensor."""

    def values(self, block: Block) -> Sequence[Floats]:
        """Returns one flat array a quantity, to the bit the same each time."""

    def count(self, block: Block, bounds: Sequence[Bounds]) -> Sequence[Counts]:
        """Returns what the bounds find in a block."""

    def find(self, block: Block, series: int, value: float, number: int) -> int:
        """Returns the place in a block of element `number` (from 1) of those of a quantity that equal a value."""


@dataclass(frozen=True)
class Measured:
    """Quantities that a function makes from the operands."""

    operands: Operands
    measure: Measure

    def values(self, block: Block) -> Sequence[Floats]:
        """Measures a block."""
        return [values.numpy(force=True) for values in self.measure(self.operands.load(block), block)]

    def count(self, block: Block, bounds: Sequence[Bounds]) -> Sequence[Counts]:
        """Measures a block and counts."""
        return count_all(self.measure(self.operands.load(block), block), bounds)

    def find(self, block: Block, series: int, value: float, number: int) -> int:
        """Measures a block and looks."""
        return find_equal(self.values(block)[series], value, number)


@dataclass(frozen=True)
class Query:
    """Which element is wanted: the `rank`-th largest (from 1) of quantity number `series`."""

    series: int
    rank: int


@dataclass(frozen=True)
class Cut:
    """The largest elements: all above the threshold, and those equal to it before element `ties_stop`.

    Attributes:
        threshold: The smallest of them.
        ties_stop: Index in the whole tensor after the last element that equals the threshold and is among them.
    """

    threshold: float
    ties_stop: int


@dataclass
class _Tally:
    """What one pass finds for one query, an entry a block."""

    query: Query
    bounds: Bounds
    counts: list[Counts] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """A threshold, how many of the elements that equal it are among the largest, and how many each block has."""

    threshold: float
    kept_ties: int
    ties: list[int]


def find_cuts(operands: Operands, quantities: Quantities, queries: Sequence[Query]) -> dict[Query, Cut]:
    """Returns the cut of each query.

    Reads a sample, then each block once, again if a bracket missed, and one block more for ties that are not all kept.

    Args:
        operands: The tensors, not empty.
        quantities: What is selected from.
        queries: What is wanted; ranks from 1 to the number of elements.

    Raises:
        MergeError: The quantity is not a number in so many places that the rank does not exist.
    """
    sample = _sample(operands, quantities)
    cuts: dict[Query, Cut] = {}
    for width in STANDARD_ERRORS:
        tallies = [
            _Tally(query, _bracket(sample, query, math.prod(operands.shape), width))
            for query in queries
            if query not in cuts
        ]
        _scan(operands, quantities, tallies)
        for tally in tallies:
            if found := _locate(tally):
                cuts[tally.query] = _cut(operands, quantities, tally.query, found)
        if all(query in cuts for query in queries):
            return cuts
    raise MergeError(f"{operands.name} holds NaN in one of the models, so its elements cannot be ranked by size")


def count_all(series: Sequence[Tensor], bounds: Sequence[Bounds]) -> list[Counts]:
    """Returns what each of the bounds finds among the values of its quantity."""
    return [
        count_between(values.numpy(), each) if values.device.type == "cpu" else count_on_card(values, each)
        for each in bounds
        for values in (series[each.series],)
    ]


def count_between(values: Floats, bounds: Bounds) -> Counts:
    """Returns what bounds find among the values of one quantity."""
    # With numpy: finding a few elements among many took torch four times as long.
    return Counts(
        above=_count_true(values > bounds.high),
        at_high=_count_true(values == bounds.high),
        at_low=_count_true(values == bounds.low),
        inside=values[np.flatnonzero((values > bounds.low) & (values < bounds.high))],
    )


def find_equal(values: Floats, value: float, number: int) -> int:
    """Returns the index of element `number` (from 1) of those that equal a value."""
    return int(np.flatnonzero(values == value)[number - 1])


def count_on_card(values: Tensor, bounds: Bounds) -> Counts:
    """Returns the same as `count_between`, counted where the values are; only those between are copied."""
    masks = (values > bounds.high, values == bounds.high, values == bounds.low)
    above, at_high, at_low = torch.stack([mask.sum() for mask in masks]).tolist()
    inside = values[(values > bounds.low) & (values < bounds.high)]
    return Counts(above, at_high, at_low, inside.numpy(force=True))


def keep_largest(values: Tensor, block: Block, *, cut: Cut) -> Tensor:
    """Sets what is not among the cut's largest magnitudes to zero, in place."""
    kept_ties = min(max(cut.ties_stop - block.start, 0), block.elements)
    head, tail = values[:kept_ties], values[kept_ties:]
    # hardshrink keeps what is strictly larger than its bound: the next number below it lets equal ones through.
    number = np.float64 if values.dtype == torch.float64 else np.float32
    torch.hardshrink(head, _next(cut.threshold, -math.inf, number), out=head)
    torch.hardshrink(tail, cut.threshold, out=tail)
    return values


def _sample(operands: Operands, quantities: Quantities) -> list[Floats] | None:
    """Returns a (spans, elements) sample of each quantity, or None if the tensor is small or has few rows."""
    row_length = operands.blocks[0].row_length
    rows = math.prod(operands.shape) // row_length
    span_rows = max(1, SPAN_ELEMENTS // row_length)
    if rows < SPANS * span_rows * SAMPLED_SHARE:
        return None
    stride = max(1, SPANS * span_rows * row_length // SAMPLE_ELEMENTS)
    pieces: list[list[Floats]] = []
    for span in range(SPANS):
        first = span * (rows - span_rows) // (SPANS - 1)
        block = Block(first * row_length, (first + span_rows) * row_length, row_length)
        series = quantities.values(block)
        # Begins at another column each time, since columns have scales of their own.
        pieces.append([values[span % stride :: stride].copy() for values in series])
    return [_stacked(series) for series in zip(*pieces, strict=True)]


def _stacked(pieces: Sequence[Floats]) -> Floats:
    """Returns the pieces as rows, all as long as the shortest."""
    width = min(piece.size for piece in pieces)
    return np.stack([piece[:width] for piece in pieces])


def _bracket(sample: Sequence[Floats] | None, query: Query, elements: int, standard_errors: float) -> Bounds:
    """Returns bounds that hold the query's element with the certainty of so many standard errors of its sampled rank.

    The error is estimated from the spread between spans, since rows differ in scale.
    """
    if sample is None or math.isinf(standard_errors):
        return Bounds(query.series, -math.inf, math.inf)
    spans = sample[query.series]
    ordered = np.sort(spans, axis=None)[::-1]
    expected = query.rank / elements * ordered.size
    typical = ordered[min(int(expected), ordered.size - 1)]
    deviation = max(float(share.mean(axis=1).std()) for share in (spans > typical, spans >= typical))
    half_width = standard_errors * (deviation / math.sqrt(len(spans)) * ordered.size + 1)
    high_rank, low_rank = int(expected - half_width), int(expected + half_width) + 1
    high = float(ordered[high_rank]) if high_rank > 0 else math.inf
    low = float(ordered[low_rank]) if low_rank < ordered.size else -math.inf
    return Bounds(query.series, low, high)


def _scan(operands: Operands, quantities: Quantities, tallies: Sequence[_Tally]) -> None:
    """Fills the tallies in one pass over the blocks."""
    bounds = [tally.bounds for tally in tallies]
    for block in operands.blocks:
        for tally, counts in zip(tallies, quantities.count(block, bounds), strict=True):
            tally.counts.append(counts)


def _count_true(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _locate(tally: _Tally) -> _Found | None:
    """Returns where the query's element is, or None if the bracket missed it."""
    bounds, counts = tally.bounds, tally.counts
    rank = tally.query.rank - sum(block.above for block in counts)
    if rank <= 0:
        return None
    at_high = [block.at_high for block in counts]
    if rank <= sum(at_high):
        return _Found(bounds.high, rank, at_high)
    rank -= sum(at_high)
    inside = sum(block.inside.size for block in counts)
    if rank <= inside:
        return _locate_inside([block.inside for block in counts], rank)
    at_low = [block.at_low for block in counts] if bounds.low < bounds.high else []
    return _Found(bounds.low, rank - inside, at_low) if rank - inside <= sum(at_low) else None


def _locate_inside(chunks: Sequence[Floats], rank: int) -> _Found:
    values = np.concatenate(chunks)
    place = values.size - rank
    threshold = float(np.partition(values, place)[place])
    kept_ties = rank - _count_true(values > threshold)
    return _Found(threshold, kept_ties, [_count_true(chunk == threshold) for chunk in chunks])


def _cut(operands: Operands, quantities: Quantities, query: Query, found: _Found) -> Cut:
    """Finds the element after the last tie that is kept, by loading the block where it lies once more."""
    if found.kept_ties == sum(found.ties):
        return Cut(found.threshold, math.prod(operands.shape))
    seen = list(accumulate(found.ties))
    index = bisect_left(seen, found.kept_ties)
    block = operands.blocks[index]
    number = found.kept_ties - (seen[index] - found.ties[index])
    return Cut(found.threshold, block.start + quantities.find(block, query.series, found.threshold, number) + 1)


def _next(value: float, towards: float, number: type[np.floating[Any]]) -> float:
    """Returns the neighbouring number of a type."""
    return float(np.nextafter(number(value), number(towards)))
