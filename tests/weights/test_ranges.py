from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubmerge.weights.ranges import ByteRange, coalesce, split


def test_neighbours_are_joined() -> None:
    assert coalesce([ByteRange(10, 20), ByteRange(0, 10)], max_bytes=100) == (ByteRange(0, 20),)


def test_a_gap_is_bridged_up_to_its_limit() -> None:
    ranges = [ByteRange(0, 10), ByteRange(13, 20)]
    assert coalesce(ranges, max_gap_bytes=3, max_bytes=100) == (ByteRange(0, 20),)
    assert coalesce(ranges, max_gap_bytes=2, max_bytes=100) == tuple(ranges)


def test_joining_stops_at_the_largest_size() -> None:
    ranges = [ByteRange(0, 10), ByteRange(10, 20), ByteRange(20, 30)]
    assert coalesce(ranges, max_bytes=20) == (ByteRange(0, 20), ByteRange(20, 30))


def test_a_range_within_another_disappears() -> None:
    assert coalesce([ByteRange(0, 50), ByteRange(10, 20)], max_bytes=20) == (ByteRange(0, 50),)


def test_no_ranges_are_no_ranges() -> None:
    assert coalesce([], max_bytes=1) == ()


def test_split_leaves_the_rest_for_last() -> None:
    assert split(ByteRange(5, 15), 4) == (ByteRange(5, 9), ByteRange(9, 13), ByteRange(13, 15))


def test_an_empty_range_splits_into_nothing() -> None:
    assert split(ByteRange(5, 5), 4) == ()


RANGES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)).map(lambda pair: ByteRange(pair[0], sum(pair))))


@given(RANGES, st.integers(0, 20), st.integers(1, 100))
def test_every_range_lies_within_one_joined_range(ranges, max_gap_bytes: int, max_bytes: int) -> None:
    joined = coalesce(ranges, max_gap_bytes=max_gap_bytes, max_bytes=max_bytes)
    assert list(joined) == sorted(joined)
    for wanted in ranges:
        assert any(outer.start <= wanted.start and wanted.stop <= outer.stop for outer in joined)
    for outer in joined:
        assert outer.size_bytes <= max_bytes or outer in ranges
