"""Tensors on their way to a file whose layout depends on all of them: kept on disk until their number is known."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from hubmerge.errors import PublishError
from hubmerge.weights.header import build_header
from hubmerge.weights.shards import FinishedShard, ShardFile

COPY_BYTES = 4 << 20


@dataclass(frozen=True)
class Spooled:
    """A tensor that lies in a spool.

    Attributes:
        dtype: safetensors code.
        offset: Of its first byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


class Spool:
    """A scratch file that tensors are appended to, from any thread, in any order; removed at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._end = 0
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError as error:
            raise PublishError(f"cannot write {path}: {error.strerror}") from error

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)

    def add(self, name: str, dtype: str, tensor: Tensor) -> Spooled:
        """Writes a tensor.

        Raises:
            PublishError: The disk refused.
        """
        data = tensor.contiguous().view(-1).view(torch.uint8).numpy().data
        with self._lock:
            offset, self._end = self._end, self._end + data.nbytes
        place = Spooled(name, dtype, tuple(tensor.shape), offset, data.nbytes)
        try:
            while data.nbytes:
                written = os.pwrite(self._descriptor, data, offset)
                offset += written
                data = data[written:]
        except OSError as error:
            raise PublishError(
                f"cannot write {self._path}: {error.strerror}", hint="Free some space, or choose another folder."
            ) from error
        return place

    def write(self, path: Path, tensors: Sequence[Spooled]) -> FinishedShard:
        """Writes tensors of the spool, in this order, as a safetensors file.

        Raises:
            PublishError: The disk refused.
        """
        header, infos = build_header([(each.name, each.dtype, each.shape) for each in tensors])
        file = ShardFile.create(path, header, size_bytes=len(header) + sum(each.size_bytes for each in tensors))
        try:
            for info, spooled in zip(infos, tensors, strict=True):
                for start, block in self._blocks(spooled):
                    file.write(info.start + start, block)
            return file.finish()
        except BaseException:
            file.abort()
            raise

    def _blocks(self, spooled: Spooled) -> Iterator[tuple[int, bytes]]:
        for start in range(0, spooled.size_bytes, COPY_BYTES):
            size_bytes = min(COPY_BYTES, spooled.size_bytes - start)
            yield start, os.pread(self._descriptor, size_bytes, spooled.offset + start)
