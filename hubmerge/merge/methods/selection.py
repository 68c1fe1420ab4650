"""The exact k-th largest element of a quantity that exists only block by block, without sorting it.

A sample of rows gives a bracket around the k-th largest. One pass over the blocks counts what lies above the bracket
and collects the few percent inside, among which the k-th is found exactly. If the bracket missed, a wider one is tried.

Differences of bf16 weights take few distinct values, so that a large share of a tensor can equal an end of the bracket.
Such ends are counted, never collected; what lies strictly between them is a small share, so memory stays small.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubmerge.errors import MergeError
from hubmerge.merge.methods.method import Block, Operands

MAX_SPANS = 256
MIN_SPANS = 64
"""Spans of rows in a sample. With fewer their spread says little, and the tensor is small: all of it is collected."""
SPAN_ELEMENTS = 2_048
"""Least elements of a span, where rows are shorter than that."""
SAMPLED_SHARE = 16
"""At most one row in this many is read for the sample, so that it costs 6 % of a pass."""
SAMPLE_ELEMENTS = 32_768
STANDARD_ERRORS = (4, 16, 64, math.inf)
"""Half-widths of the brackets tried one after the other."""

Floats = NDArray[np.floating[Any]]
Measure = Callable[[list[Tensor], Block], Sequence[Tensor]]
"""Makes the quantities to select from, one flat tensor each, from operands of whole rows, which it may overwrite."""


@dataclass(frozen=True)
class Query:
    """Which element is wanted: the `rank`-th largest (from 1) of the quantity at place `series` of a Measure."""

    series: int
    rank: int


@dataclass(frozen=True)
class Cut:
    """The `rank` largest elements: all above the threshold, and those equal to it before element `ties_stop`.

    Attributes:
        threshold: The smallest of them.
        ties_stop: Index in the whole tensor after the last element that equals the threshold and is among them.
    """

    threshold: float
    ties_stop: int


@dataclass(frozen=True)
class _Bracket:
    """Bounds for the threshold. `has_ties` if elements may equal a bound; otherwise there are none."""

    low: float
    high: float
    has_ties: bool


_EVERYTHING = _Bracket(-math.inf, math.inf, has_ties=True)


@dataclass
class _Tally:
    """What one pass finds for one query: counts and elements, an entry a block."""

    query: Query
    bracket: _Bracket
    above: list[int] = field(default_factory=list)
    at_high: list[int] = field(default_factory=list)
    inside: list[Floats] = field(default_factory=list)
    at_low: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """A threshold, how many of the elements that equal it are among the largest, and how many each block has."""

    threshold: float
    kept_ties: int
    ties: list[int]


def find_cuts(operands: Operands, measure: Measure, queries: Sequence[Query]) -> dict[Query, Cut]:
    """Returns the cut of each query.

    Reads a sample, then each block once, again if a bracket missed, and one block more for ties that are not all kept.

    Args:
        operands: The tensors, not empty.
        measure: Makes the quantities from the operands, to the bit the same each time.
        queries: What is wanted; ranks from 1 to the number of elements.

    Raises:
        MergeError: The quantity is not a number in so many places that the rank does not exist.
    """
    sample = _sample(operands, measure)
    cuts: dict[Query, Cut] = {}
    for width in STANDARD_ERRORS:
        tallies = [
            _Tally(query, _bracket(sample, query, math.prod(operands.shape), width))
            for query in queries
            if query not in cuts
        ]
        _scan(operands, measure, tallies)
        for tally in tallies:
            if found := _locate(tally):
                cuts[tally.query] = _cut(operands, measure, tally.query, found)
        if all(query in cuts for query in queries):
            return cuts
    raise MergeError(f"{operands.name} holds NaN in one of the models, so its elements cannot be ranked by size")


def keep_largest(values: Tensor, block: Block, *, cut: Cut) -> Tensor:
    """Sets what is not among the cut's largest magnitudes to zero, in place."""
    kept_ties = min(max(cut.ties_stop - block.start, 0), block.elements)
    head, tail = values[:kept_ties], values[kept_ties:]
    # hardshrink keeps what is strictly larger than its bound: the next number below it lets equal ones through.
    number = np.float64 if values.dtype == torch.float64 else np.float32
    torch.hardshrink(head, _next(cut.threshold, -math.inf, number), out=head)
    torch.hardshrink(tail, cut.threshold, out=tail)
    return values


def _sample(operands: Operands, measure: Measure) -> list[Floats] | None:
    """Returns a (spans, elements) sample of each quantity, or None if the tensor is small or has few rows."""
    row_length = operands.blocks[0].row_length
    rows = math.prod(operands.shape) // row_length
    span_rows = max(1, SPAN_ELEMENTS // row_length)
    spans = min(MAX_SPANS, rows // (span_rows * SAMPLED_SHARE))
    if spans < MIN_SPANS:
        return None
    stride = max(1, span_rows * row_length * spans // SAMPLE_ELEMENTS)
    pieces: list[list[Floats]] = []
    for span in range(spans):
        first = span * (rows - span_rows) // (spans - 1)
        block = Block(first * row_length, (first + span_rows) * row_length, row_length)
        series = measure(operands.load(block), block)
        # Begins at another column each time, since columns have scales of their own.
        pieces.append([values[span % stride :: stride].numpy(force=True).copy() for values in series])
    return [_stacked(series) for series in zip(*pieces, strict=True)]


def _stacked(pieces: Sequence[Floats]) -> Floats:
    """Returns the pieces as rows, all as long as the shortest."""
    width = min(piece.size for piece in pieces)
    return np.stack([piece[:width] for piece in pieces])


def _bracket(sample: Sequence[Floats] | None, query: Query, elements: int, standard_errors: float) -> _Bracket:
    """Returns bounds that hold the query's element with the certainty of so many standard errors of its sampled rank.

    The error is estimated from the spread between spans, since rows differ in scale.
    """
    if sample is None or math.isinf(standard_errors):
        return _EVERYTHING
    spans = sample[query.series]
    ordered = np.sort(spans, axis=None)[::-1]
    expected = query.rank / elements * ordered.size
    typical = ordered[min(int(expected), ordered.size - 1)]
    deviation = max(float(share.mean(axis=1).std()) for share in (spans > typical, spans >= typical))
    half_width = standard_errors * (deviation / math.sqrt(len(spans)) * ordered.size + 1)
    return _bounded(ordered, int(expected - half_width), int(expected + half_width) + 1)


def _bounded(ordered: Floats, high_rank: int, low_rank: int) -> _Bracket:
    """Returns the bracket between two places of a descending sample, beyond which nothing is known."""
    high = float(ordered[high_rank]) if high_rank > 0 else math.inf
    low = float(ordered[low_rank]) if low_rank < ordered.size else -math.inf
    if any(math.isinf(bound) or _count_true(ordered == bound) > 1 for bound in (low, high)):
        return _Bracket(low, high, has_ties=True)
    number = ordered.dtype.type
    return _Bracket(_next(low, -math.inf, number), _next(high, math.inf, number), has_ties=False)


def _scan(operands: Operands, measure: Measure, tallies: Sequence[_Tally]) -> None:
    """Fills the tallies in one pass over the blocks."""
    for block in operands.blocks:
        series = measure(operands.load(block), block)
        for tally in tallies:
            _add(tally, series[tally.query.series])


def _add(tally: _Tally, values: Tensor) -> None:
    # numpy, on the CPU: finding a few elements among many took torch four times as long.
    bracket, array = tally.bracket, values.numpy(force=True)
    tally.above.append(_count_true(array > bracket.high))
    if bracket.has_ties:
        tally.at_high.append(_count_true(array == bracket.high))
    if bracket.low < bracket.high:
        tally.inside.append(array[np.flatnonzero((array > bracket.low) & (array < bracket.high))])
        if bracket.has_ties:
            tally.at_low.append(_count_true(array == bracket.low))


def _count_true(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _locate(tally: _Tally) -> _Found | None:
    """Returns where the query's element is, or None if the bracket missed it."""
    rank = tally.query.rank - sum(tally.above)
    if rank <= 0:
        return None
    if rank <= sum(tally.at_high):
        return _Found(tally.bracket.high, rank, tally.at_high)
    rank -= sum(tally.at_high)
    inside = sum(chunk.size for chunk in tally.inside)
    if rank <= inside:
        return _locate_inside(tally.inside, rank)
    if rank - inside <= sum(tally.at_low):
        return _Found(tally.bracket.low, rank - inside, tally.at_low)
    return None


def _locate_inside(chunks: Sequence[Floats], rank: int) -> _Found:
    values = np.concatenate(chunks)
    place = values.size - rank
    threshold = float(np.partition(values, place)[place])
    kept_ties = rank - _count_true(values > threshold)
    return _Found(threshold, kept_ties, [_count_true(chunk == threshold) for chunk in chunks])


def _cut(operands: Operands, measure: Measure, query: Query, found: _Found) -> Cut:
    """Finds the element after the last tie that is kept, by loading the block where it lies once more."""
    if found.kept_ties == sum(found.ties):
        return Cut(found.threshold, math.prod(operands.shape))
    seen = list(accumulate(found.ties))
    index = bisect_left(seen, found.kept_ties)
    block = operands.blocks[index]
    values = measure(operands.load(block), block)[query.series]
    place = found.kept_ties - seen[index] - 1  # from the end of the block's ties
    return Cut(found.threshold, block.start + int(values.eq(found.threshold).nonzero()[place].item()) + 1)


def _next(value: float, towards: float, number: type[np.floating[Any]]) -> float:
    """Returns the neighbouring number of a type."""
    return float(np.nextafter(number(value), number(towards)))
