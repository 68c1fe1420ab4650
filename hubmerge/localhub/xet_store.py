"""Xorbs and file descriptions in a folder.

    xorbs/ab/abcd...          a xorb, byte for byte as it was uploaded
    files/ab/abcd...          JSON: the SHA-256 and the terms of the file with this Xet hash
    sha256/ab/abcd...         JSON: the Xet hash of the file with this SHA-256

Everything is written beside its place and renamed into it, and nothing is ever changed afterwards, so
readers need no lock and a killed server leaves nothing half-written. What came first stays: the store cannot
check that a xorb or a file has the hash it was uploaded under, so a later upload must not replace it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from hubmerge.localhub.json_file import read_json, write_json
from hubmerge.localhub.xet_format import Chunk, FileInfo, Term, XetFormatError, is_hash, scan_xorb, unpack_chunk

# A xorb of 64 MiB has about 1,000 chunks, 150 kB of them here; 64 xorbs cover 4 GB of file.
_SCANNED_XORBS_KEPT = 64


class XetStore:
    """The content of the store; safe to use from several threads.

    Arguments called `*_hash` must be hashes (`parse_hash`), since they become file names.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.chunks = lru_cache(maxsize=_SCANNED_XORBS_KEPT)(self._scan)

    def has_xorb(self, xorb_hash: str) -> bool:
        """Whether the xorb was uploaded."""
        return self.xorb_path(xorb_hash).exists()

    def xorb_path(self, xorb_hash: str) -> Path:
        """Where the xorb lies, or will lie."""
        return self._path("xorbs", xorb_hash)

    @contextmanager
    def new_xorb(self, xorb_hash: str) -> Iterator[BinaryIO]:
        """An empty file that becomes the xorb when the block ends; an exception in the block discards it."""
        with _staged(self.xorb_path(xorb_hash)) as file:
            yield file

    def add_file(self, info: FileInfo) -> None:
        """Register a file, and that it has its SHA-256; does nothing for what is registered already.

        Raises:
            XetFormatError: A term names chunks that no uploaded xorb has, or gives them another length.
        """
        for term in info.terms:
            self._check_term(term)
        terms = [[term.xorb_hash, term.start, term.stop, term.unpacked_bytes] for term in info.terms]
        _write_once(self._path("files", info.file_hash), {"sha256": info.sha256, "terms": terms})
        if info.sha256 is not None:
            _write_once(self._path("sha256", info.sha256), info.file_hash)

    def file(self, file_hash: str) -> FileInfo:
        """The file with this Xet hash.

        Raises:
            KeyError: No such file was registered.
        """
        record = read_json(self._path("files", file_hash))
        if record is None:
            raise KeyError(file_hash)
        return FileInfo(file_hash, record["sha256"], tuple(Term(*term) for term in record["terms"]))

    def hash_of_sha256(self, sha256: str) -> str | None:
        """The Xet hash of the file that was registered with this SHA-256; None for anything else."""
        if not is_hash(sha256):
            return None
        file_hash: str | None = read_json(self._path("sha256", sha256))
        return file_hash

    def write_file(self, file_hash: str, target: Path) -> str:
        """Rebuild a file, chunk by chunk, and return the SHA-256 of what was written.

        Raises:
            KeyError: No such file was registered.
            XetFormatError: A chunk does not unpack; `target` is then left as it was.
        """
        digest = hashlib.sha256()
        info = self.file(file_hash)
        with _staged(target) as file:
            for term in info.terms:
                for data in self._read_term(term):
                    file.write(data)
                    digest.update(data)
        return digest.hexdigest()

    def _path(self, kind: str, name: str) -> Path:
        assert is_hash(name), name
        return self._root / kind / name[:2] / name

    def _scan(self, xorb_hash: str) -> tuple[Chunk, ...]:
        path = self.xorb_path(xorb_hash)
        with path.open("rb", buffering=0) as xorb:
            return scan_xorb(xorb, path.stat().st_size)

    def _check_term(self, term: Term) -> None:
        if not self.has_xorb(term.xorb_hash):
            raise XetFormatError(f"xorb {term.xorb_hash} was not uploaded")
        chunks = self.chunks(term.xorb_hash)
        if term.stop > len(chunks):
            raise XetFormatError(f"xorb {term.xorb_hash} has {len(chunks)} chunks, not {term.stop}")
        unpacked_bytes = sum(chunk.unpacked_bytes for chunk in chunks[term.start : term.stop])
        if unpacked_bytes != term.unpacked_bytes:
            raise XetFormatError(
                f"the chunks {term.start} to {term.stop} of xorb {term.xorb_hash} "
                f"unpack to {unpacked_bytes} bytes, not {term.unpacked_bytes}"
            )

    def _read_term(self, term: Term) -> Iterator[bytes]:
        chunks = self.chunks(term.xorb_hash)[term.start : term.stop]
        with self.xorb_path(term.xorb_hash).open("rb") as xorb:
            xorb.seek(chunks[0].start)
            for chunk in chunks:
                yield unpack_chunk(chunk, xorb.read(chunk.stop - chunk.start))


@contextmanager
def _staged(target: Path) -> Iterator[BinaryIO]:
    """A file beside `target` that replaces it when the block ends, and vanishes when the block raises."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".incoming-")
    staged = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
        staged.replace(target)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def _write_once(target: Path, value: object) -> None:
    if not target.exists():
        write_json(target, value)
