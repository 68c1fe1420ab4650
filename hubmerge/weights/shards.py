"""A shard on its way to the disk: laid out from its header, filled in any order by any thread, hashed meanwhile."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from hubmerge.errors import PublishError

PART_SUFFIX = ".part"

HASH_BLOCK_BYTES = 1 << 18
"""Read back at once for hashing: large against the call's overhead, small against the cache."""

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

CANNOT_PREALLOCATE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""What file systems without preallocation answer; the file then grows as it is written."""


@dataclass(frozen=True)
class FinishedShard:
    """A complete file, under its final name.

    Attributes:
        sha256: Of the whole file, in hex.
    """

    path: Path
    size_bytes: int
    sha256: str


class ShardFile:
    """A file of known size whose header is written and whose tensors arrive in any order.

    It is called `<name>.part` until `finish`, so that a file with the final name is always complete. `write` may be
    called from any thread, once for each byte. The sha256 follows the longest prefix that has been written: a buffer
    that comes next is hashed where it is, what came too early is read back from pages that the system still holds in
    memory. Only one thread at a time hashes and none waits for it.
    """

    def __init__(self, path: Path, descriptor: int, *, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self._descriptor = descriptor
        self._extents = _Extents()
        self._digest = hashlib.sha256()
        self._hashed_bytes = 0
        self._read_back = bytearray(HASH_BLOCK_BYTES)
        self._hashing = threading.Lock()

    @classmethod
    def create(cls, path: Path, header: bytes, *, size_bytes: int) -> ShardFile:
        """Returns a shard with its space reserved and its header written.

        Raises:
            PublishError: The folder cannot be written or the disk has too little room.
        """
        assert len(header) <= size_bytes
        part = _part_of(path)
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError as error:
            raise PublishError(f"cannot write {part}: {error.strerror}") from error
        shard = cls(path, descriptor, size_bytes=size_bytes)
        try:
            _reserve(descriptor, part, size_bytes)
            shard.write(0, header)
        except BaseException:
            shard.abort()
            raise
        return shard

    def write(self, offset: int, buffer: bytes | bytearray | memoryview) -> None:
        """Writes the whole buffer at `offset` bytes from the start of the file.

        Raises:
            PublishError: The disk refused.
        """
        view = memoryview(buffer)
        if not view.nbytes:
            return  # an empty view cannot be cast
        view = view.cast("B")
        assert offset + view.nbytes <= self.size_bytes, f"{self.path.name} ends before byte {offset + view.nbytes}"
        self._hash_if_next(offset, view)
        self._write_all(offset, view)
        self._extents.add(offset, offset + view.nbytes)
        self._catch_up()

    def finish(self, *, durable: bool = False) -> FinishedShard:
        """Gives the file its final name.

        Args:
            durable: Wait until the content is on the disk, so that it survives a power cut.

        Raises:
            PublishError: The disk refused.
        """
        assert self._extents.contiguous_bytes == self.size_bytes, f"{self.path.name} is not filled"
        with self._hashing:
            self._hash_contiguous()
        try:
            if durable:
                os.fsync(self._descriptor)
            self._close()
            _part_of(self.path).replace(self.path)
            if durable:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise PublishError(f"cannot complete {self.path}: {error.strerror}") from error
        return FinishedShard(self.path, self.size_bytes, self._digest.hexdigest())

    def abort(self) -> None:
        """Removes what has been written, unless it is finished; nothing with the final name is touched."""
        self._close()
        _part_of(self.path).unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write_all(self, offset: int, view: memoryview) -> None:
        try:
            while view.nbytes:
                written = os.pwrite(self._descriptor, view, offset)
                offset += written
                view = view[written:]
        except OSError as error:
            raise _disk_error(_part_of(self.path), error, needed_bytes=view.nbytes) from error

    def _hash_if_next(self, offset: int, view: memoryview) -> None:
        """Hashes what comes next before it is written, which would drive it out of the cache."""
        if self._hashing.acquire(blocking=False):
            try:
                if offset == self._hashed_bytes:
                    self._digest.update(view)
                    self._hashed_bytes += view.nbytes
            finally:
                self._hashing.release()

    def _catch_up(self) -> None:
        """Hashes what was written too early, unless somebody does."""
        if self._hashed_bytes < self._extents.contiguous_bytes and self._hashing.acquire(blocking=False):
            try:
                self._hash_contiguous()
            finally:
                self._hashing.release()

    def _hash_contiguous(self) -> None:
        while self._hashed_bytes < (stop := self._extents.contiguous_bytes):
            room = memoryview(self._read_back)[: stop - self._hashed_bytes]
            size_bytes = os.preadv(self._descriptor, [room], self._hashed_bytes)
            assert size_bytes, "what was written can be read"
            self._digest.update(room[:size_bytes])
            self._hashed_bytes += size_bytes


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Extents:
    """Which bytes have been written, as the length of the unbroken prefix and the extents beyond it."""

    def __init__(self) -> None:
        self.contiguous_bytes = 0
        self._beyond: dict[int, int] = {}
        self._lock = threading.Lock()

    def add(self, start: int, stop: int) -> None:
        """Notes that [start, stop) is written; extents never overlap."""
        if start == stop:
            return
        with self._lock:
            assert self.contiguous_bytes <= start not in self._beyond, f"byte {start} was written twice"
            self._beyond[start] = stop
            while self.contiguous_bytes in self._beyond:
                self.contiguous_bytes = self._beyond.pop(self.contiguous_bytes)


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + PART_SUFFIX)


def _reserve(descriptor: int, part: Path, size_bytes: int) -> None:
    if size_bytes == 0:
        return
    try:
        _allocate(descriptor, size_bytes)
    except OSError as error:
        os.ftruncate(descriptor, 0)  # what could be reserved counts as free in the message
        raise _disk_error(part, error, needed_bytes=size_bytes) from error


def _allocate(descriptor: int, size_bytes: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except AttributeError:  # macOS has no posix_fallocate
        os.ftruncate(descriptor, size_bytes)
    except OSError as error:
        if error.errno not in CANNOT_PREALLOCATE:
            raise
        os.ftruncate(descriptor, size_bytes)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(part: Path, error: OSError, *, needed_bytes: int) -> PublishError:
    if error.errno not in DISK_FULL:
        return PublishError(f"cannot write {part}: {error.strerror}")
    free_bytes = shutil.disk_usage(part.parent).free
    if error.errno == errno.EFBIG and free_bytes >= needed_bytes:
        return PublishError(
            f"{part} would be larger than its file system or `ulimit -f` allows",
            hint="Write smaller shards (--shard-size), or choose another folder.",
        )
    return PublishError(
        f"{part.name} needs {needed_bytes:,} bytes more, but {part.parent} has {free_bytes:,} free",
        hint="Free some space, choose another folder, or write smaller shards.",
    )
