"""The seam to the world: the files of one repo at one commit, or of one folder, read by byte range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class FileEntry:
    """One file of a listing.

    Attributes:
        path: Relative to the root, with forward slashes.
        blob_id: Git's hash of the file (of its pointer, if it is a large one); None on disk.
        sha256: Hash of the content, known without reading for the Hub's large files; None otherwise.
    """

    path: str
    size_bytes: int
    blob_id: str | None = None
    sha256: str | None = None


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
            TransferError: The bytes did not arrive, after every retry.
        """

    def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        """Fills the whole buffer with the bytes from `start` on; raises as `read` does."""

    def local_path(self, path: str) -> Path | None:
        """Returns a file of this disk with the same content, which may be read directly; None if there is none."""

    def close(self) -> None:
        """Gives back file descriptors; nothing may be read afterwards."""
