"""File contents, stored once under their sha256."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from types import TracebackType

from hubmerge.localhub.git_objects import lfs_pointer, object_id
from hubmerge.localhub.records import FileEntry
from hubmerge.localhub.refusals import bad_request


class BlobStore:
    """A folder of immutable files named by their sha256."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Returns where this content is, or would be."""
        return self._root / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Returns whether the content is stored."""
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        """Returns the size in bytes of a stored content."""
        return self.path(sha256).stat().st_size

    def read(self, sha256: str) -> bytes:
        """Returns the whole content; for small files only."""
        return self.path(sha256).read_bytes()

    def writer(self) -> BlobWriter:
        """Returns an open writer whose content becomes visible with `keep`."""
        return BlobWriter(self, self._incoming)

    def scratch_path(self) -> Path:
        """Returns the name of a file, not there yet, on the same file system."""
        handle, name = tempfile.mkstemp(dir=self._incoming)
        os.close(handle)
        return Path(name)

    def adopt(self, file: Path, sha256: str) -> None:
        """Moves a finished file, whose sha256 the caller has checked, into the store."""
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True)
        file.replace(target)

    def add_regular(self, data: bytes) -> FileEntry:
        """Stores a small file and returns its entry."""
        with self.writer() as writer:
            writer.write(data)
            sha256 = writer.keep()
        return FileEntry(sha256=sha256, size=len(data), oid=object_id("blob", data), large=False)

    def large_entry(self, sha256: str, *, xet_hash: str | None) -> FileEntry:
        """Returns the entry of a stored large file; its `oid` is that of the LFS pointer."""
        size = self.size(sha256)
        oid = object_id("blob", lfs_pointer(sha256, size))
        return FileEntry(sha256=sha256, size=size, oid=oid, large=True, xet_hash=xet_hash)


class BlobWriter:
    """Hashes what is written; without `keep` the bytes are dropped when the `with` block ends."""

    def __init__(self, store: BlobStore, folder: Path) -> None:
        self._store = store
        self._digest = hashlib.sha256()
        self._size = 0
        handle, name = tempfile.mkstemp(dir=folder)
        self._file = os.fdopen(handle, "wb")
        self._path = Path(name)

    def write(self, data: bytes) -> None:
        """Appends to the content."""
        self._digest.update(data)
        self._size += len(data)
        self._file.write(data)

    def keep(self, *, sha256: str | None = None, size: int | None = None) -> str:
        """Stores the content and returns its sha256; refuses it if that or the size is not as announced."""
        self._file.close()
        actual = self._digest.hexdigest()
        if sha256 not in (None, actual):
            raise bad_request(f"The content has sha256 {actual}, announced was {sha256}")
        if size not in (None, self._size):
            raise bad_request(f"The content has {self._size} bytes, announced were {size}")
        self._store.adopt(self._path, actual)
        return actual

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
