"""A folder within a repo or a folder, as files of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from hubmerge.weights.files import FileEntry, Files


@dataclass(frozen=True)
class Subfolder:
    """The files below one folder of others, which stay open until those are closed; see `Files`."""

    whole: Files
    folder: str

    @property
    def label(self) -> str:
        """As of the whole, with the folder behind it."""
        return f"{self.whole.label}/{self.folder}"

    def entries(self) -> Mapping[str, FileEntry]:
        """Returns the files below the folder, their paths without it."""
        return self._entries

    def read(self, path: str, start: int, stop: int) -> bytes:
        """Returns the bytes [start, stop)."""
        return self.whole.read(self._path(path), start, stop)

    def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        """Fills the buffer."""
        self.whole.read_into(self._path(path), start, buffer)

    def local_path(self, path: str) -> Path | None:
        """Returns where the content lies on this disk, None if it does not."""
        return self.whole.local_path(self._path(path))

    def close(self) -> None:
        """Does nothing: whoever opened the whole closes it."""

    def _path(self, path: str) -> str:
        return f"{self.folder}/{path}"

    @cached_property
    def _entries(self) -> Mapping[str, FileEntry]:
        start = f"{self.folder}/"
        found = self.whole.entries().items()
        return {
            path.removeprefix(start): replace(entry, path=path.removeprefix(start))
            for path, entry in found
            if path.startswith(start)
        }
