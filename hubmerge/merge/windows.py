"""Remote tensors that are too large to be held: read in chunks, of which those in use and the next are held."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hubmerge.merge.expr import Expr, Load, RemapRows, walk
from hubmerge.merge.methods.method import BLOCK_ELEMENTS, PASS_BLOCKS
from hubmerge.weights.files import Files

LARGEST_ITEM_BYTES = 8
"""An element of F64."""
LARGEST_KERNEL_ITEM_BYTES = 4
"""An element of F32, the widest that compiled kernels read."""

CHUNK_FLOOR_BYTES = LARGEST_KERNEL_ITEM_BYTES * PASS_BLOCKS * BLOCK_ELEMENTS
"""Whatever a worker reads at a time fits in: a block of any dtype, or a run of them for a kernel."""

CHUNKS_HELD = 3
"""Two that a block may lie across, and the one that is on its way."""

Bytes = NDArray[np.uint8]


def is_windowed(expr: Expr, remote: Sequence[Load], *, budget_bytes: int) -> bool:
    """Returns whether an output tensor's remote sources are read in windows.

    Rows that are gathered from anywhere in a tensor need all of it.
    """
    return held_bytes(expr, remote, budget_bytes=budget_bytes) < sum(load.tensor.size_bytes for load in remote)


def held_bytes(expr: Expr, remote: Sequence[Load], *, budget_bytes: int) -> int:
    """Returns how much of an output tensor's remote sources is in memory at a time."""
    total = sum(load.tensor.size_bytes for load in remote)
    if total <= budget_bytes or _gathers_rows(expr):
        return total
    chunk = chunk_bytes(remote, budget_bytes=budget_bytes)
    return sum(min(load.tensor.size_bytes, CHUNKS_HELD * chunk) for load in remote)


def chunk_bytes(remote: Sequence[Load], *, budget_bytes: int) -> int:
    """Returns the size of a chunk with which the sources stay within the budget, if it is not below the floor."""
    chunk = budget_bytes // (CHUNKS_HELD * len(remote))
    return max(CHUNK_FLOOR_BYTES, chunk // LARGEST_ITEM_BYTES * LARGEST_ITEM_BYTES)


def _gathers_rows(expr: Expr) -> bool:
    return any(isinstance(part, RemapRows) for part in walk(expr))


@dataclass
class _Chunk:
    data: Bytes
    request: Future[None]


class WindowedTensor:
    """A tensor whose chunks are asked for as they are needed, by one thread, and again with every pass.

    Args:
        files: What it lies in.
        load: Which tensor.
        pool: Where requests run.
        chunk_bytes: A multiple of the largest element.
        on_read: Told the bytes that arrive on the first pass.
    """

    def __init__(
        self, files: Files, load: Load, pool: Executor, *, chunk_bytes: int, on_read: Callable[[int], None]
    ) -> None:
        self._files = files
        self._load = load
        self._pool = pool
        self._chunk_bytes = chunk_bytes
        self._on_read = on_read
        self._count = math.ceil(load.tensor.size_bytes / chunk_bytes)
        self._chunks: dict[int, _Chunk] = {}
        self._next_new = 0

    def read(self, start: int, stop: int) -> Bytes:
        """Returns bytes [start, stop) of the data, good until the next call; the caller must not write to them.

        Raises:
            TransferError: They did not arrive, after every retry.
            CancelledError: The reading was stopped.
        """
        if start == stop:
            return np.empty(0, np.uint8)
        first, last = start // self._chunk_bytes, (stop - 1) // self._chunk_bytes
        self._move_to(range(first, min(last + 2, self._count)))
        parts = [self._arrived(number, start, stop) for number in range(first, last + 1)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _move_to(self, wanted: range) -> None:
        for number in [number for number in self._chunks if number not in wanted]:
            del self._chunks[number]
        for number in wanted:
            if number not in self._chunks:
                self._chunks[number] = self._ask(number)

    def _ask(self, number: int) -> _Chunk:
        first = number * self._chunk_bytes
        data: Bytes = np.empty(min(self._chunk_bytes, self._load.tensor.size_bytes - first), np.uint8)
        try:
            return _Chunk(data, self._pool.submit(self._fetch, number, data))
        except RuntimeError:  # the pool takes no more requests after stop
            raise CancelledError from None

    def _fetch(self, number: int, data: Bytes) -> None:
        start = self._load.tensor.start + number * self._chunk_bytes
        self._files.read_into(self._load.file, start, data.data)

    def _arrived(self, number: int, start: int, stop: int) -> Bytes:
        chunk, first = self._chunks[number], number * self._chunk_bytes
        chunk.request.result()
        if number >= self._next_new:
            self._next_new = number + 1
            self._on_read(chunk.data.size)
        return chunk.data[max(0, start - first) : stop - first]
