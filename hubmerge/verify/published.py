"""A published merge, opened: its files, what it says of itself, and where its tensors lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from hubmerge.card.lock import LARGEST_LOCK_BYTES, LOCK_FILE, LockFacts, parse_lock
from hubmerge.errors import CardError, SourceError
from hubmerge.merge.documents import CARD_FILENAME, RECIPE_FILENAME
from hubmerge.merge.recipe import Recipe, load_recipe
from hubmerge.weights.checkpoint import CARD_LIMIT_BYTES, SourceTensor, read_header
from hubmerge.weights.files import FileEntry, Files, read_small
from hubmerge.weights.header import Header
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.shards import hash_file
from hubmerge.weights.snapshot import open_snapshot

RECIPE_LIMIT_BYTES = 4_000_000
HASHED_BYTES = 4 << 20
"""Read at once of a file whose hash nobody knows."""


@dataclass(frozen=True)
class Published:
    """A merge as somebody published it.

    Attributes:
        sha: Its commit; None for a folder.
        lock: None where the merge is not hubmerge's.
        card: README.md; empty if there is none.
    """

    files: Files
    sha: str | None
    recipe: Recipe
    lock: LockFacts | None
    card: str

    @property
    def made_by(self) -> str:
        """The tool that made it, as far as the files say."""
        return "another tool" if self.lock is None else f"hubmerge {self.lock.hubmerge_version}"

    @property
    def weight_files(self) -> tuple[str, ...]:
        """Every safetensors file that loaders may look at, in order."""
        return tuple(path for path in self.files.entries() if "/" not in path and path.endswith(".safetensors"))


@contextmanager
def open_published(ref: ModelRef, *, token: str | bool | None = None) -> Iterator[Published]:
    """Gives a published merge, its files open.

    Raises:
        SourceError: There is no such model, or nothing says how it was made.
        RecipeError: Its recipe cannot be read.
        CardError: Its lock file cannot be read.
    """
    if ref.adapter is not None:
        raise SourceError(f"{ref} is not one model", hint=f"To verify the model alone, name {ref.without_adapter}.")
    snapshot = open_snapshot(ref, token=token)
    files = snapshot.files
    try:
        recipe, lock = _read_recipe(files), _read_lock(files)
        card = _text(files, CARD_FILENAME, CARD_LIMIT_BYTES) if CARD_FILENAME in files.entries() else ""
        yield Published(files, snapshot.sha, recipe, lock, card)
    finally:
        files.close()


def read_headers(published: Published) -> dict[str, Header]:
    """Returns the header of every file of weights.

    Raises:
        HeaderError: One is broken.
    """
    return {path: read_header(published.files, path) for path in published.weight_files}


def tensors_of(headers: Mapping[str, Header]) -> dict[str, SourceTensor]:
    """Returns every tensor by its name."""
    return {info.name: SourceTensor(file, info) for file, header in headers.items() for info in header.tensors}


def sha256_of(files: Files, entry: FileEntry) -> str:
    """Returns the SHA-256 of a file's content, read only where the listing does not have it."""
    if entry.sha256 is not None:
        return entry.sha256
    local = files.local_path(entry.path)
    if local is not None:
        return hash_file(local)
    digest = hashlib.sha256()
    for start in range(0, entry.size_bytes, HASHED_BYTES):
        digest.update(files.read(entry.path, start, min(start + HASHED_BYTES, entry.size_bytes)))
    return digest.hexdigest()


def _read_recipe(files: Files) -> Recipe:
    if RECIPE_FILENAME not in files.entries():
        raise SourceError(
            f"{files.label} has no {RECIPE_FILENAME}, so nothing says how it was made",
            hint="Only merges that were published with their recipe can be verified.",
        )
    # The line feed makes it text in any case: load_recipe takes a single line for the name of a file.
    return load_recipe(_text(files, RECIPE_FILENAME, RECIPE_LIMIT_BYTES) + "\n", lenient=True)


def _read_lock(files: Files) -> LockFacts | None:
    if LOCK_FILE not in files.entries():
        return None
    text = read_small(files, LOCK_FILE, limit_bytes=LARGEST_LOCK_BYTES)
    try:
        return parse_lock(text.decode())
    except UnicodeDecodeError:
        raise CardError(f"{LOCK_FILE}: it is not UTF-8") from None


def _text(files: Files, path: str, limit_bytes: int) -> str:
    return read_small(files, path, limit_bytes=limit_bytes).decode(errors="replace")
