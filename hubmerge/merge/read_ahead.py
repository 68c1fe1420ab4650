"""Source tensors' bytes: read from disk when they are asked for, from the Hub before they are.

What must come over the network is fetched in the order in which it will be needed, batch by batch: a batch is a run of
output tensors whose sources are about BATCH_BYTES together. Within a batch neighbouring ranges of a file become one
request, and large ones are split over the connections. A batch is asked for when its bytes fit into the budget beside
those that are still in use, or when nothing is in use, so the tensor that is needed next always gets its turn.

An output tensor whose sources exceed the budget on their own is read in windows (see windows) instead, once for each
pass that its method makes over them.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from hubmerge.merge.expr import Expr, Load, loads
from hubmerge.merge.native.pages import MappedRange, can_map
from hubmerge.merge.windows import WindowedTensor, chunk_bytes, is_windowed
from hubmerge.weights.files import Files
from hubmerge.weights.ranges import ByteRange, coalesce, split

BATCH_BYTES = 32 << 20
"""Small enough that a few batches fit a small budget, large enough that requests stay long."""

REQUEST_BYTES = 16 << 20
"""Longest range of one request: several connections share a large tensor, and a retry repeats little."""

ALIGNMENT = 8
"""Of the largest element. Memory from numpy has it; the place where a tensor begins in a file need not."""

Bytes = NDArray[np.uint8]


@dataclass
class _Extent:
    """Consecutive bytes of one remote file, on their way or here."""

    load: Load
    range: ByteRange
    data: Bytes
    requests: list[Future[None]] = field(default_factory=list)

    def holds(self, load: Load) -> bool:
        """Whether the tensor lies in it."""
        same_file = (load.parent, load.file) == (self.load.parent, self.load.file)
        return same_file and self.range.start <= load.tensor.start and load.tensor.stop <= self.range.stop


@dataclass
class _Batch:
    """The remote sources of consecutive output tensors."""

    loads: dict[Load, None] = field(default_factory=dict)
    size_bytes: int = 0
    outputs_left: int = 0
    extents: list[_Extent] = field(default_factory=list)
    chunk_bytes: int | None = None
    """Of one whose tensors are read in windows."""
    issued: threading.Event = field(default_factory=threading.Event)

    def lacks(self, group: Sequence[Load]) -> list[Load]:
        """Returns the loads of an output tensor that none of the others shares with it."""
        return [load for load in group if load not in self.loads]

    def add(self, group: Sequence[Load]) -> None:
        """Adds an output tensor."""
        new = self.lacks(group)
        self.loads.update(dict.fromkeys(new))
        self.size_bytes += _size_bytes(new)
        self.outputs_left += 1


class ReadAhead:
    """The sources of a run of expressions; each is asked for its bytes by one thread, and then released.

    Args:
        files: One for each parent.
        exprs: In the order in which they will be evaluated.
        budget_bytes: Most bytes of remote sources to hold; what has to be held whole may exceed it on its own.
        connections: Requests at a time.
        on_read: Told the bytes of every source tensor as they arrive; may be called from any thread.
    """

    def __init__(
        self,
        files: Sequence[Files],
        exprs: Sequence[Expr],
        *,
        budget_bytes: int,
        connections: int,
        on_read: Callable[[int], None],
    ) -> None:
        self._files = files
        self._on_read = on_read
        self._budget_bytes = budget_bytes
        self._local = {pair: files[pair[0]].local_path(pair[1]) is not None for pair in _files_of(exprs)}
        self._batches = list(self._planned(exprs))
        self._batch_of = [batch for batch in self._batches for _ in range(batch.outputs_left)]
        self._used_bytes = 0
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="hubmerge-read")
        self._issuer = threading.Thread(target=self._issue_all, name="hubmerge-read-ahead", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._issuer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._issuer.join()
        self._pool.shutdown()

    def stop(self) -> None:
        """Asks for nothing more; reads, and waits for bytes that were not on their way yet, end in a CancelledError."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def abort(self) -> None:
        """Stops, and closes the files: a read that would try for minutes gives up at its next failure."""
        self.stop()
        for files in self._files:
            files.close()

    def source(self, number: int) -> BatchSource:
        """Returns where the bytes of expression `number` come from; waits until they are on their way."""
        batch = self._batch_of[number]
        batch.issued.wait()
        if batch.chunk_bytes is None:
            return BatchSource(self._files, self._local, self._stopped, batch.extents)
        opener = partial(self._windowed, batch.chunk_bytes)
        return BatchSource(self._files, self._local, self._stopped, windowed=opener)

    def _windowed(self, size_bytes: int, load: Load) -> WindowedTensor:
        return WindowedTensor(self._files[load.parent], load, self._pool, chunk_bytes=size_bytes, on_read=self._on_read)

    def release(self, number: int, expr: Expr) -> None:
        """Says that expression `number` has been evaluated, or never will be."""
        self._on_read(_size_bytes(load for load in loads(expr) if self._local[load.parent, load.file]))
        batch = self._batch_of[number]
        with self._changed:
            batch.outputs_left -= 1
            if batch.outputs_left == 0:
                batch.extents.clear()
                self._used_bytes -= batch.size_bytes
                self._changed.notify_all()

    def _remote_loads(self, expr: Expr) -> list[Load]:
        return [load for load in loads(expr) if not self._local[load.parent, load.file]]

    def _planned(self, exprs: Sequence[Expr]) -> Iterator[_Batch]:
        """Yields runs of consecutive outputs, each as long as its loads stay within BATCH_BYTES and the budget."""
        limit_bytes = min(BATCH_BYTES, self._budget_bytes)
        batch = _Batch()
        for expr in exprs:
            group = self._remote_loads(expr)
            if is_windowed(expr, group, budget_bytes=self._budget_bytes):
                if batch.outputs_left:
                    yield batch
                yield _Batch(
                    size_bytes=self._budget_bytes,
                    outputs_left=1,
                    chunk_bytes=chunk_bytes(group, budget_bytes=self._budget_bytes),
                )
                batch = _Batch()
                continue
            if batch.outputs_left and batch.size_bytes + _size_bytes(batch.lacks(group)) > limit_bytes:
                yield batch
                batch = _Batch()
            batch.add(group)
        if batch.outputs_left:
            yield batch

    def _issue_all(self) -> None:
        for batch in self._batches:
            if batch.size_bytes:
                self._await_room(batch.size_bytes)
            if batch.loads:
                with suppress(RuntimeError):  # the pool takes no more requests after stop
                    self._issue(batch)
            batch.issued.set()

    def _await_room(self, size_bytes: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._stopped.is_set()
                    or self._used_bytes == 0
                    or self._used_bytes + size_bytes <= self._budget_bytes
                )
            )
            self._used_bytes += size_bytes

    def _issue(self, batch: _Batch) -> None:
        for extent in _extents(batch.loads):
            for part in split(extent.range, REQUEST_BYTES):
                extent.requests.append(self._pool.submit(self._fetch, extent, part))
            batch.extents.append(extent)

    def _fetch(self, extent: _Extent, part: ByteRange) -> None:
        first = extent.range.start
        buffer = extent.data[part.start - first : part.stop - first].data
        self._files[extent.load.parent].read_into(extent.load.file, part.start, buffer)
        self._on_read(part.stop - part.start)


class BatchSource:
    """The sources of one expression."""

    def __init__(
        self,
        files: Sequence[Files],
        local: Mapping[tuple[int, str], bool],
        stopped: threading.Event,
        extents: Sequence[_Extent] = (),
        windowed: Callable[[Load], WindowedTensor] | None = None,
    ) -> None:
        self._files = files
        self._local = local
        self._extents = tuple(extents)
        self._windowed = windowed
        self._stopped = stopped

    def open(self, load: Load) -> StoredTensor | ArrivingTensor | WindowedTensor:
        """Returns a tensor's data, for one thread.

        Raises:
            CancelledError: The reading was stopped, so the data may never have been asked for.
        """
        if self._stopped.is_set():
            raise CancelledError
        if self._local[load.parent, load.file]:
            return stored_tensor(self._files[load.parent], load, self._stopped)
        if self._windowed is not None:
            return self._windowed(load)
        extent = next(extent for extent in self._extents if extent.holds(load))
        return ArrivingTensor(extent, load, self._stopped)


class StoredTensor:
    """A tensor on this disk."""

    def __init__(self, files: Files, load: Load, stopped: threading.Event) -> None:
        self._files = files
        self._load = load
        self._stopped = stopped
        self._room: Bytes = np.empty(0, np.uint8)

    def read(self, start: int, stop: int) -> Bytes:
        """Returns bytes [start, stop) of the data, good until the next call; the caller must not write to them.

        Raises:
            TransferError: They cannot be read.
            CancelledError: The reading was stopped.
        """
        if self._stopped.is_set():
            raise CancelledError
        if self._room.size < stop - start:  # new memory for every block would cost more than the reading
            self._room = np.empty(stop - start, np.uint8)
        data = self._room[: stop - start]
        self._files.read_into(self._load.file, self._load.tensor.start + start, data.data)
        return data


class MappedTensor(StoredTensor):
    """A tensor on this disk whose bytes are not copied to be seen."""

    def __init__(self, files: Files, load: Load, stopped: threading.Event, mapped: MappedRange) -> None:
        super().__init__(files, load, stopped)
        self._mapped = mapped

    def read(self, start: int, stop: int) -> Bytes:
        """Returns bytes [start, stop); see `StoredTensor`."""
        if self._stopped.is_set():
            raise CancelledError
        try:
            return self._mapped.read(start, stop)
        except OSError:
            return super().read(start, stop)  # which says what is wrong with the file, if anything is


def stored_tensor(files: Files, load: Load, stopped: threading.Event) -> StoredTensor:
    """Returns a tensor of a file on this disk, mapped into memory where the system can."""
    tensor, path = load.tensor, files.local_path(load.file)
    if path is not None and tensor.size_bytes and tensor.start % ALIGNMENT == 0 and can_map():
        with suppress(OSError):
            return MappedTensor(files, load, stopped, MappedRange(path, tensor.start, tensor.size_bytes))
    return StoredTensor(files, load, stopped)


class ArrivingTensor:
    """A tensor that is on its way, or here."""

    def __init__(self, extent: _Extent, load: Load, stopped: threading.Event) -> None:
        first = load.tensor.start - extent.range.start
        self._data = extent.data[first : first + load.tensor.size_bytes]
        self._is_aligned = first % ALIGNMENT == 0
        self._requests = tuple(extent.requests)
        self._stopped = stopped

    def read(self, start: int, stop: int) -> Bytes:
        """Returns bytes [start, stop) of the data once all of it is here; the caller must not write to them.

        Raises:
            TransferError: They did not arrive, after every retry.
            CancelledError: The reading was stopped.
        """
        if self._stopped.is_set():
            raise CancelledError
        for request in self._requests:
            request.result()
        data = self._data[start:stop]
        return data if self._is_aligned else data.copy()


def _files_of(exprs: Sequence[Expr]) -> Iterable[tuple[int, str]]:
    return dict.fromkeys((load.parent, load.file) for expr in exprs for load in loads(expr))


def _size_bytes(group: Iterable[Load]) -> int:
    return sum(load.tensor.size_bytes for load in group)


def _extents(batch_loads: Iterable[Load]) -> Iterator[_Extent]:
    """Yields the loads' bytes with neighbours joined, file by file, in the order in which files are first needed."""
    by_file: dict[tuple[int, str], list[Load]] = {}
    for load in batch_loads:
        by_file.setdefault((load.parent, load.file), []).append(load)
    for group in by_file.values():
        ranges = [ByteRange(load.tensor.start, load.tensor.stop) for load in group]
        for joined in coalesce(ranges, max_gap_bytes=0, max_bytes=sys.maxsize):
            yield _Extent(group[0], joined, np.empty(joined.stop - joined.start, np.uint8))
