"""Bytes of a local file, seen where the system holds them in memory instead of being copied."""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hubmerge.merge.native.library import library

Bytes = NDArray[np.uint8]

READY_BYTES = 64 << 20
"""Made ready at a time: a call for every few thousand elements would cost more than its work."""


class MappedRange:
    """A range of a file's bytes, used by one thread.

    Args:
        path: The file, which nobody changes meanwhile.
        start: Where the range begins.
        size_bytes: Its length, not zero.

    Raises:
        OSError: The system refuses; reading the file in pieces may still be possible.
    """

    def __init__(self, path: Path, start: int, size_bytes: int) -> None:
        first = start - start % mmap.ALLOCATIONGRANULARITY
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # Private and writable, since torch and ctypes want memory that could be written to; nobody writes.
            mapping = mmap.mmap(descriptor, start - first + size_bytes, access=mmap.ACCESS_COPY, offset=first)
        finally:
            os.close(descriptor)
        self._data: Bytes = np.frombuffer(mapping, np.uint8, size_bytes, start - first)
        self._address = self._data.ctypes.data
        self._ready = range(0)

    def read(self, start: int, stop: int) -> Bytes:
        """Returns bytes [start, stop) of the range, good for as long as they are held; nobody may write to them.

        Raises:
            OSError: They cannot be read this way, since the file is shorter than it was or the disk failed.
        """
        if start < self._ready.start or stop > self._ready.stop:
            self._ready = self._made_ready(start, max(stop, start + READY_BYTES))
        return self._data[start:stop]

    def _made_ready(self, start: int, stop: int) -> range:
        stop = min(stop, self._data.size)
        if problem := _populate(self._address + start, stop - start):
            raise OSError(problem, os.strerror(problem))
        return range(start, stop)


def can_map() -> bool:
    """Returns whether the system makes mapped pages ready on request, so that what cannot be read is an error."""
    return library() is not None and _makes_ready()


@cache
def _makes_ready() -> bool:
    page = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.uint8)
    return _populate(page.ctypes.data, page.size) == 0


def _populate(address: int, size_bytes: int) -> int:
    """Brings pages into memory; returns 0 or an errno."""
    loaded = library()
    assert loaded is not None
    problem: int = loaded.hubmerge_populate(ctypes.c_void_p(address), ctypes.c_int64(size_bytes))
    return problem
