"""Byte ranges: joined so that neighbours are read at once, split so that no read is too large."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class ByteRange:
    """The bytes [start, stop) of a file."""

    start: int
    stop: int

    @property
    def size_bytes(self) -> int:
        """Bytes between start and stop."""
        return self.stop - self.start


def coalesce(ranges: Iterable[ByteRange], *, max_gap_bytes: int = 0, max_bytes: int) -> tuple[ByteRange, ...]:
    """Returns ranges in ascending order such that each given one lies wholly within one of them.

    Ranges that overlap, touch or lie at most `max_gap_bytes` apart are joined as long as the joined range has at most
    `max_bytes`. A single range that is longer than that stays whole: see `split`.
    """
    joined: list[ByteRange] = []
    for candidate in sorted(ranges):
        if joined and _may_join(joined[-1], candidate, max_gap_bytes=max_gap_bytes, max_bytes=max_bytes):
            joined[-1] = ByteRange(joined[-1].start, max(joined[-1].stop, candidate.stop))
        else:
            joined.append(candidate)
    return tuple(joined)


def split(byte_range: ByteRange, size_bytes: int) -> tuple[ByteRange, ...]:
    """Returns consecutive pieces of at most `size_bytes`, of which only the last may be shorter."""
    assert size_bytes > 0
    starts = range(byte_range.start, byte_range.stop, size_bytes)
    return tuple(ByteRange(start, min(start + size_bytes, byte_range.stop)) for start in starts)


def _may_join(left: ByteRange, right: ByteRange, *, max_gap_bytes: int, max_bytes: int) -> bool:
    if right.stop <= left.stop:
        return True
    return right.start - left.stop <= max_gap_bytes and right.stop - left.start <= max_bytes
