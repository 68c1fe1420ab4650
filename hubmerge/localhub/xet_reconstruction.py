"""Which chunks of which xorbs a client must fetch to rebuild a file or a byte range of it; pure.

Offsets into files and xorbs are bytes and `stop` is exclusive; the wire's inclusive ends are made in `cas.py`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from hubmerge.localhub.xet_format import Chunk, Term

ChunksOf = Callable[[str], Sequence[Chunk]]
"""The chunks of the xorb with this hash."""


@dataclass(frozen=True, slots=True)
class XorbRange:
    """The chunks `chunk_start` to `chunk_stop` of a xorb, which are its bytes `start` to `stop`."""

    chunk_start: int
    chunk_stop: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """The answer to "how do I rebuild these bytes?".

    Attributes:
        skip_bytes: Bytes to leave out at the start of the first term, since only whole chunks are fetched.
        terms: What to concatenate; the last term may run past the asked range.
        fetches: Per xorb hash, the ranges that cover all its terms: sorted, disjoint and not adjacent.
    """

    skip_bytes: int
    terms: tuple[Term, ...]
    fetches: dict[str, tuple[XorbRange, ...]]


def reconstruct(terms: Iterable[Term], chunks_of: ChunksOf, start: int, stop: int) -> Reconstruction:
    """The chunks that hold the bytes `start` to `stop` of a file with these terms."""
    skip_bytes = 0
    wanted: list[Term] = []
    term_stop = 0
    for term in terms:
        term_start, term_stop = term_stop, term_stop + term.unpacked_bytes
        if term_stop <= start or stop <= term_start:
            continue
        clipped, dropped_bytes = _clip(term, chunks_of(term.xorb_hash), start - term_start, stop - term_start)
        if not wanted:
            skip_bytes = max(start - term_start, 0) - dropped_bytes
        wanted.append(clipped)
    return Reconstruction(skip_bytes, tuple(wanted), _plan_fetches(wanted, chunks_of))


def _clip(term: Term, chunks: Sequence[Chunk], start: int, stop: int) -> tuple[Term, int]:
    """The term without the chunks outside its bytes `start` to `stop`, and the bytes dropped before it."""
    sizes = (chunk.unpacked_bytes for chunk in chunks[term.start : term.stop])
    edges = list(accumulate(sizes, initial=0))
    first = bisect_right(edges, max(start, 0)) - 1
    last = bisect_left(edges, min(stop, edges[-1]))
    clipped = Term(term.xorb_hash, term.start + first, term.start + last, edges[last] - edges[first])
    return clipped, edges[first]


def _plan_fetches(terms: Iterable[Term], chunks_of: ChunksOf) -> dict[str, tuple[XorbRange, ...]]:
    spans: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for term in terms:
        spans[term.xorb_hash].append((term.start, term.stop))
    return {
        xorb_hash: tuple(_locate(start, stop, chunks_of(xorb_hash)) for start, stop in _merge(xorb_spans))
        for xorb_hash, xorb_spans in spans.items()
    }


def _merge(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union of half-open spans as sorted spans with gaps between them."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


def _locate(start: int, stop: int, chunks: Sequence[Chunk]) -> XorbRange:
    return XorbRange(start, stop, chunks[start].start, chunks[stop - 1].stop)
