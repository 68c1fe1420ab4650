"""Tensors larger than the memory that a merge may take."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from hubmerge.merge import windows
from hubmerge.merge.expr import Merge, RemapRows, Same
from hubmerge.merge.methods.method import Settings
from hubmerge.merge.row_map import RowMap
from tests.merge.test_read_ahead import CONTENT, RemoteFiles, load, reading

CHUNK = 64


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "CHUNK_FLOOR_BYTES", CHUNK)


@pytest.fixture
def remote() -> Iterator[RemoteFiles]:
    files = RemoteFiles()
    files.gate.set()
    yield files
    files.close()


def test_what_exceeds_the_budget_is_read_in_windows_with_every_pass(remote: RemoteFiles) -> None:
    expr, arrived = load(10, 3_010), []
    with reading(remote, [expr], budget_bytes=600, connections=2, on_read=arrived.append) as reader:
        tensor = reader.source(0).open(expr)
        for _ in range(2):
            assert b"".join(bytes(tensor.read(at, at + 100)) for at in range(0, 3_000, 100)) == CONTENT[10:3_010]
        held = sum(chunk.data.size for chunk in tensor._chunks.values())
    assert held <= 600
    assert {stop - start for _, start, stop in remote.requests} == {200}
    assert len(remote.requests) == 30
    assert sum(arrived) == 3_000


def test_any_part_of_a_windowed_tensor_can_be_read(remote: RemoteFiles) -> None:
    expr, generator = load(7, 2_007), random.Random(1)
    with reading(remote, [expr], budget_bytes=300, connections=2) as reader:
        tensor = reader.source(0).open(expr)
        for _ in range(40):
            start, stop = sorted(generator.choices(range(2_001), k=2))
            assert bytes(tensor.read(start, stop)) == CONTENT[7 + start : 7 + stop]


def test_the_sources_of_one_windowed_expression_share_the_budget(remote: RemoteFiles) -> None:
    expr = Same((load(0, 900), load(900, 1_800)))
    with reading(remote, [expr, load(2_000, 2_100)], budget_bytes=600, connections=1) as reader:
        first, second = (reader.source(0).open(each) for each in expr.inputs)
        assert bytes(first.read(0, 10)) + bytes(second.read(0, 10)) == CONTENT[:10] + CONTENT[900:910]
        assert all(start < 2_000 for _, start, _ in remote.requests)
        reader.release(0, expr)
        assert bytes(reader.source(1).open(load(2_000, 2_100)).read(0, 100)) == CONTENT[2_000:2_100]


def test_a_stopped_reader_ends_who_reads_windows(remote: RemoteFiles) -> None:
    expr = load(0, 3_000)
    with reading(remote, [expr], budget_bytes=300) as reader:
        tensor = reader.source(0).open(expr)
        tensor.read(0, 10)
        reader.stop()
        with pytest.raises(CancelledError):
            tensor.read(2_000, 2_010)


def test_rows_that_come_from_anywhere_are_held_whole() -> None:
    source = load(0, 3_000)
    merge = Merge("linear", "w", (source, source), has_base=False, settings=Settings({}, ()), seed=0)
    assert windows.held_bytes(merge, [source], budget_bytes=600) == 3 * 200
    gathered = RemapRows((source,), RowMap(b"", b"", b"", b""), (3, 1_000))
    assert windows.held_bytes(gathered, [source], budget_bytes=600) == 3_000
