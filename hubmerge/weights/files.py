"""The seam to the world: the files of one repo at one commit, or of one folder, read by byte range."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from hubmerge.errors import SourceError, TransferError


@dataclass(frozen=True)
class FileEntry:
    """One file of a listing.

    Attributes:
        path: Relative to the root, with forward slashes.
        blob_id: Git's hash of the file (of its pointer, if it is a large one); None on disk.
        sha256: Hash of the content, known without reading for the Hub's large files; None otherwise.
        modified_ns: Time of the last change on disk; None on the Hub.
    """

    path: str
    size_bytes: int
    blob_id: str | None = None
    sha256: str | None = None
    modified_ns: int | None = None


class Files(Protocol):
    """Files that do not change while they are read; every method may be called from any thread."""

    @property
    def label(self) -> str:
        """What messages call them: `org/name@0123abc` or the folder."""

    def entries(self) -> Mapping[str, FileEntry]:
        """Returns every file by its path, sorted."""

    def read(self, path: str, start: int, stop: int) -> bytes:
        """Returns the bytes [start, stop) of a file.

        Raises:
            SourceError: There is no such file, or it may not be read.
            TransferError: The file is shorter, or the bytes did not arrive, after every retry.
        """

    def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        """Fills the whole buffer with the bytes from `start` on; raises as `read` does."""

    def local_path(self, path: str) -> Path | None:
        """Returns a file of this disk with the same content, which may be read directly; None if there is none."""

    def close(self) -> None:
        """Gives back file descriptors; nothing may be read afterwards."""


class LocalFiles:
    """The files of a folder. Hidden ones and links that lead out of it do not count as its files.

    The one way out is the Hub cache's: `snapshots/<sha>/*` are links into `blobs/` of the same repo.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()
        self.label = str(folder)
        self._descriptors = OpenFiles()
        self._paths: dict[str, Path] = {}

    def entries(self) -> Mapping[str, FileEntry]:
        """Returns the folder's files as they were at the first call."""
        return self._entries

    def read(self, path: str, start: int, stop: int) -> bytes:
        """Returns the bytes [start, stop); see `Files`."""
        buffer = bytearray(stop - start)
        self.read_into(path, start, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        """Fills the buffer; see `Files`."""
        self._descriptors.read_into(self.local_path(path), start, buffer)

    def local_path(self, path: str) -> Path:
        """Returns where the content lies.

        Raises:
            SourceError: There is no such file in the folder.
        """
        if path not in self._paths:  # asked for with every block that is read
            entry_of(self, path)
            self._paths[path] = (self._root / path).resolve()
        return self._paths[path]

    def close(self) -> None:
        """Closes every file that was read."""
        self._descriptors.close()

    @cached_property
    def _entries(self) -> Mapping[str, FileEntry]:
        paths = sorted(path for path in self._walk() if self._is_own_file(path))
        return MappingProxyType({entry.path: entry for entry in map(self._entry, paths)})

    def _entry(self, path: Path) -> FileEntry:
        status = path.stat()
        return FileEntry(path.relative_to(self._root).as_posix(), status.st_size, modified_ns=status.st_mtime_ns)

    def _walk(self) -> Iterator[Path]:
        for parent, folders, names in os.walk(self._root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(parent, name) for name in names if not name.startswith("."))

    def _is_own_file(self, path: Path) -> bool:
        try:
            target = path.resolve()
        except (OSError, RuntimeError):  # a link that leads to itself
            return False
        return target.is_file() and any(target.is_relative_to(home) for home in self._homes)

    @cached_property
    def _homes(self) -> tuple[Path, ...]:
        repo = self._root.parent.parent
        is_snapshot = self._root.parent.name == "snapshots" and (repo / "blobs").is_dir()
        return (self._root, repo / "blobs") if is_snapshot else (self._root,)


class OpenFiles:
    """Files of this disk, opened once and read by position from any thread."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
        self._lock = threading.Lock()

    def read_into(self, path: Path, start: int, buffer: memoryview) -> None:
        """Fills the whole buffer with the bytes from `start` on.

        Raises:
            TransferError: The file cannot be read or is shorter.
        """
        try:
            descriptor = self._descriptor(path)
            while buffer.nbytes:
                count = os.preadv(descriptor, [buffer], start)
                if count == 0:
                    raise TransferError(f"{path} ends {buffer.nbytes:,} bytes too early, at {start:,}")
                start += count
                buffer = buffer[count:]
        except OSError as error:
            raise TransferError(f"cannot read {path}: {error.strerror}") from error

    def close(self) -> None:
        """Closes all of them."""
        with self._lock:
            while self._descriptors:
                os.close(self._descriptors.popitem()[1])

    def _descriptor(self, path: Path) -> int:
        known = self._descriptors.get(path)
        if known is not None:
            return known
        with self._lock:
            if path not in self._descriptors:
                self._descriptors[path] = os.open(path, os.O_RDONLY)
            return self._descriptors[path]


def entry_of(files: Files, path: str) -> FileEntry:
    """Returns the listing's entry for a path.

    Raises:
        SourceError: There is none.
    """
    entry = files.entries().get(path)
    if entry is None:
        raise SourceError(f"{files.label} has no file {path}")
    return entry


def read_small(files: Files, path: str, *, limit_bytes: int) -> bytes:
    """Returns a whole file that is known to be small, such as config.json.

    Raises:
        SourceError: There is no such file, or it is larger than `limit_bytes`, as no honest one is.
        TransferError: It did not arrive.
    """
    size_bytes = entry_of(files, path).size_bytes
    if size_bytes > limit_bytes:
        raise SourceError(f"{files.label}/{path} has {size_bytes:,} bytes; more than {limit_bytes:,} are not read")
    return files.read(path, 0, size_bytes)
