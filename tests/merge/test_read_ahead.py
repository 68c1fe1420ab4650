from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hubmerge.errors import TransferError
from hubmerge.merge import read_ahead
from hubmerge.merge.expr import Expr, Load, Same
from hubmerge.merge.read_ahead import ReadAhead
from hubmerge.weights.files import FileEntry, LocalFiles
from hubmerge.weights.header import TensorInfo

CONTENT = random.Random(3).randbytes(4_000)
Request = tuple[str, int, int]


@dataclass
class RemoteFiles:
    """Files in memory that are had by requests only; these wait while `gate` is closed."""

    label: str = "remote"
    requests: list[Request] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def entries(self) -> Mapping[str, FileEntry]:
        raise AssertionError("nobody needs the listing")

    def read(self, path: str, start: int, stop: int) -> bytes:
        raise AssertionError("bytes are read into place")

    def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        self.requests.append((path, start, start + buffer.nbytes))
        self.gate.wait()
        if self.error is not None:
            raise self.error
        buffer[:] = CONTENT[start : start + buffer.nbytes]

    def local_path(self, path: str) -> Path | None:
        return None

    def close(self) -> None:
        self.gate.set()


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(read_ahead, "BATCH_BYTES", 100)
    monkeypatch.setattr(read_ahead, "REQUEST_BYTES", 64)
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("hubmerge-read")]
    assert left == []


@pytest.fixture
def remote() -> Iterator[RemoteFiles]:
    files = RemoteFiles()
    files.gate.set()
    yield files
    files.close()


def load(start: int, stop: int, *, file: str = "model.safetensors", parent: int = 0) -> Load:
    return Load(parent, file, TensorInfo(f"{file}:{start}", "U8", (stop - start,), start, stop))


def row(*sizes: int) -> list[Load]:
    """Returns tensors of so many bytes, one after the other."""
    stops = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    return [load(stop - size, stop) for stop, size in zip(stops, sizes, strict=True)]


def reading(
    files: RemoteFiles | LocalFiles,
    exprs: Sequence[Expr],
    *,
    budget_bytes: int = 10_000,
    connections: int = 1,
    on_read: Callable[[int], None] = lambda size_bytes: None,
) -> ReadAhead:
    return ReadAhead([files], exprs, budget_bytes=budget_bytes, connections=connections, on_read=on_read)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def consume(reader: ReadAhead, exprs: Sequence[Load]) -> list[bytes]:
    """Reads each tensor whole, in order, and releases it."""
    contents = []
    for number, expr in enumerate(exprs):
        contents.append(bytes(reader.source(number).open(expr).read(0, expr.tensor.size_bytes)))
        reader.release(number, expr)
    return contents


def test_every_tensor_has_its_bytes_and_each_byte_is_asked_for_once(remote: RemoteFiles) -> None:
    generator = random.Random(1)
    exprs = row(*[generator.choice([0, 1, 30, 90, 250]) for _ in range(40)])
    with reading(remote, exprs, connections=4, budget_bytes=300) as reader:
        contents = consume(reader, exprs)
    assert contents == [CONTENT[expr.tensor.start : expr.tensor.stop] for expr in exprs]
    asked = sorted(byte for _, start, stop in remote.requests for byte in range(start, stop))
    assert asked == list(range(exprs[-1].tensor.stop))


def test_requests_come_in_the_order_in_which_tensors_are_needed(remote: RemoteFiles) -> None:
    exprs = list(reversed(row(60, 60, 60, 60)))
    with reading(remote, exprs) as reader:
        consume(reader, exprs)
    assert [start for _, start, _ in remote.requests] == [180, 120, 60, 0]


def test_neighbours_are_one_request_and_gaps_are_not_read(remote: RemoteFiles) -> None:
    exprs = [load(0, 10), load(10, 30), load(40, 50), load(10, 20, file="other")]
    with reading(remote, exprs) as reader:
        consume(reader, exprs)
    assert remote.requests == [
        ("model.safetensors", 0, 30),
        ("model.safetensors", 40, 50),
        ("other", 10, 20),
    ]


def test_a_long_tensor_is_split_over_the_connections(remote: RemoteFiles) -> None:
    exprs = [load(5, 205)]
    with reading(remote, exprs, connections=4) as reader:
        consume(reader, exprs)
    assert sorted(remote.requests) == [
        ("model.safetensors", 5, 69),
        ("model.safetensors", 69, 133),
        ("model.safetensors", 133, 197),
        ("model.safetensors", 197, 205),
    ]


def test_any_part_of_a_tensor_can_be_read(remote: RemoteFiles) -> None:
    expr = load(100, 300)
    with reading(remote, [load(90, 100), expr]) as reader:
        assert bytes(reader.source(1).open(expr).read(17, 130)) == CONTENT[117:230]


def test_a_tensor_that_serves_neighbouring_outputs_is_asked_for_once(remote: RemoteFiles) -> None:
    exprs = [load(0, 40), load(0, 40), load(40, 60)]
    with reading(remote, exprs) as reader:
        consume(reader, exprs)
    assert remote.requests == [("model.safetensors", 0, 60)]


def test_never_more_than_the_budget_is_held(remote: RemoteFiles) -> None:
    exprs = row(*[50] * 20)
    with reading(remote, exprs, budget_bytes=250, connections=4) as reader:
        for number, expr in enumerate(exprs):
            reader.source(number).open(expr).read(0, 50)
            held = 0 if number == 0 else 50 * (number - number % 2)  # batches of two tensors are released whole
            assert sum(stop - start for _, start, stop in remote.requests) <= held + 250
            reader.release(number, expr)
    assert sum(stop - start for _, start, stop in remote.requests) == 1_000


def test_the_budget_is_used_before_anything_is_released(remote: RemoteFiles) -> None:
    exprs = row(*[100] * 5)
    with reading(remote, exprs, budget_bytes=300, connections=4):
        assert eventually(lambda: sum(stop - start for _, start, stop in remote.requests) == 300)
        time.sleep(0.02)
        assert sum(stop - start for _, start, stop in remote.requests) == 300


def test_what_is_larger_than_the_budget_is_read_alone(remote: RemoteFiles) -> None:
    exprs = row(60, 500, 60)
    with reading(remote, exprs, budget_bytes=100, connections=4) as reader:
        assert eventually(lambda: len(remote.requests) == 1)
        reader.release(0, exprs[0])
        assert eventually(lambda: sum(stop - start for _, start, stop in remote.requests) == 560)
        time.sleep(0.02)
        assert all(stop <= 560 for _, _, stop in remote.requests)
        reader.release(1, exprs[1])
        assert eventually(lambda: ("model.safetensors", 560, 620) in remote.requests)


def test_the_sources_of_one_expression_are_read_together(remote: RemoteFiles) -> None:
    expr = Same((load(0, 90), load(200, 290)))
    with reading(remote, [expr], budget_bytes=10) as reader:
        source = reader.source(0)
        assert [bytes(source.open(part).read(0, 90)) for part in expr.inputs] == [CONTENT[:90], CONTENT[200:290]]


def test_arrived_bytes_are_reported(remote: RemoteFiles) -> None:
    exprs, arrived = row(30, 300, 70), []
    with reading(remote, exprs, connections=2, on_read=arrived.append) as reader:
        consume(reader, exprs)
    assert sum(arrived) == 400


def test_files_of_this_disk_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(CONTENT)
    exprs, arrived = row(30, 300, 70), []
    with reading(LocalFiles(tmp_path), exprs, budget_bytes=1, on_read=arrived.append) as reader:
        assert consume(reader, exprs) == [CONTENT[:30], CONTENT[30:330], CONTENT[330:400]]
    assert arrived == [30, 300, 70]


def test_a_failed_read_reaches_whoever_needs_the_tensor(remote: RemoteFiles) -> None:
    remote.error = TransferError("it did not arrive")
    with reading(remote, row(10)) as reader, pytest.raises(TransferError, match="it did not arrive"):
        reader.source(0).open(load(0, 10)).read(0, 10)


def test_stopping_ends_those_who_wait_and_asks_for_nothing_more(remote: RemoteFiles) -> None:
    remote.gate.clear()
    exprs = row(*[100] * 6)
    with reading(remote, exprs, budget_bytes=300) as reader, ThreadPoolExecutor(4) as workers:
        waiting = [workers.submit(lambda n: reader.source(n).open(exprs[n]).read(0, 100), n) for n in (1, 2, 4, 5)]
        assert eventually(lambda: len(remote.requests) == 1)
        reader.stop()
        for task in waiting:
            with pytest.raises(CancelledError):
                task.result(timeout=5)
        assert len(remote.requests) == 1
        remote.gate.set()


def test_a_reader_that_is_never_asked_ends(remote: RemoteFiles) -> None:
    started = time.monotonic()
    with reading(remote, row(*[100] * 30), budget_bytes=100):
        pass
    assert time.monotonic() - started < 5
