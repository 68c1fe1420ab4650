"""A merge as its own files tell it: recipe, config, headers of the weights, lock file and card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubmerge.card.facts import FileFacts
from hubmerge.card.lock import LARGEST_LOCK_BYTES, LOCK_FILE, LockFacts, parse_lock
from hubmerge.card.render import read_card
from hubmerge.errors import CardError, RecipeError, SourceError
from hubmerge.lineage.published import CONFIG_FILE as RECIPE_FILE
from hubmerge.lineage.published import fenced_recipe
from hubmerge.merge.recipe import Recipe, load_recipe
from hubmerge.weights.checkpoint import CARD_FILE, CARD_LIMIT_BYTES, CONFIG_FILE, CONFIG_LIMIT_BYTES, read_header
from hubmerge.weights.files import Files, entry_of, read_small
from hubmerge.weights.front_matter import split_card
from hubmerge.weights.json_files import read_json_object
from hubmerge.weights.reference import ModelRef, parse_reference
from hubmerge.weights.shard_index import find_shards
from hubmerge.weights.shards import hash_file
from hubmerge.weights.snapshot import Snapshot, open_snapshot


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The files that hold the weights.

    Attributes:
        parameter_count: None where a header cannot be read.
        notes: Why not, as sentences.
    """

    files: tuple[FileFacts, ...] = ()
    parameter_count: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FoundMerge:
    """A merge that somebody made.

    Attributes:
        ref: The repo or the folder.
        sha: The commit that was read; None for a folder.
        card: README.md, whole; empty if there is none.
        recipe_text: As it is published.
        recipe: None where hubmerge does not understand it; its names can be read all the same.
        config: config.json; empty if there is none.
        lock: What hubmerge recorded when it made these very weights; None if it did not.
        lock_hint: What to do about a lock file that this hubmerge does not read; None if nothing is to be done.
        notes: What a reader should know, whole sentences.
    """

    ref: ModelRef
    sha: str | None
    files: Files
    card: str
    recipe_text: str
    recipe: Recipe | None
    config: Mapping[str, Any]
    weights: Weights
    lock: LockFacts | None
    lock_hint: str | None
    notes: tuple[str, ...]

    @property
    def repo_id(self) -> str | None:
        """None for a folder."""
        return None if self.ref.is_local else self.ref.path

    @property
    def title(self) -> str:
        """What its card is headed by if it has no heading yet."""
        return self.ref.folder.resolve().name if self.ref.is_local else self.ref.path.rpartition("/")[2]


@contextmanager
def open_merged(name: str, *, token: str | bool | None = None) -> Iterator[FoundMerge]:
    """Gives the merge in a repo or folder.

    Args:
        name: `org/name`, `org/name@revision` or a folder.
        token: As huggingface_hub takes it: None is the stored token if there is one, False is none.

    Raises:
        SourceError: It cannot be read, or publishes no recipe.
        TransferError: The Hub does not answer.
        CardError: Its card is not UTF-8.
    """
    ref = parse_reference(name)
    snapshot = open_snapshot(ref, token=token)
    try:
        yield _found(ref, snapshot)
    finally:
        snapshot.files.close()


def file_of(merge: FoundMerge, path: str) -> bytes | None:
    """Returns a small file that stands beside the weights; None if there is none.

    Raises:
        SourceError: It is too large.
    """
    if path not in merge.files.entries():
        return None
    return read_small(merge.files, path, limit_bytes=CARD_LIMIT_BYTES)


def _found(ref: ModelRef, snapshot: Snapshot) -> FoundMerge:
    files = snapshot.files
    has_card = CARD_FILE in files.entries()
    card = read_card(read_small(files, CARD_FILE, limit_bytes=CARD_LIMIT_BYTES)) if has_card else ""
    recipe_text = _recipe_text(files, card)
    recipe, problems = _recipe(recipe_text)
    weights = _weights(files)
    lock, doubts, hint = _lock(files, weights)
    return FoundMerge(
        ref=ref,
        sha=snapshot.sha,
        files=files,
        card=card,
        recipe_text=recipe_text,
        recipe=recipe,
        config=_config(files),
        weights=weights,
        lock=lock,
        lock_hint=hint,
        notes=(*problems, *weights.notes, *doubts),
    )


def _text(files: Files, path: str, *, limit_bytes: int) -> str | None:
    if path not in files.entries():
        return None
    return read_small(files, path, limit_bytes=limit_bytes).decode(errors="replace")


def _recipe_text(files: Files, card: str) -> str:
    text = _text(files, RECIPE_FILE, limit_bytes=CARD_LIMIT_BYTES) or fenced_recipe(split_card(card)[1])
    if text is None:
        raise SourceError(
            f"{files.label} publishes no recipe, neither as {RECIPE_FILE} nor in its README.md",
            hint="`hubmerge lineage` shows what else is known of a model.",
        )
    return text


def _recipe(text: str) -> tuple[Recipe | None, tuple[str, ...]]:
    try:
        recipe = load_recipe(f"{text}\n", lenient=True)
    except RecipeError as error:
        return None, (f"hubmerge cannot make this merge: {error}.",)
    return recipe, ()


def _config(files: Files) -> Mapping[str, Any]:
    if CONFIG_FILE not in files.entries():
        return {}
    return read_json_object(files, CONFIG_FILE, limit_bytes=CONFIG_LIMIT_BYTES)


def _weights(files: Files) -> Weights:
    try:
        paths = find_shards(files).files
        headers = [read_header(files, path) for path in paths]
    except SourceError as error:
        return Weights(notes=(f"The weights cannot be described: {error}.",))
    if not paths:
        return Weights(notes=("There are no safetensors files, so nothing is said of the weights.",))
    facts = tuple(_file_facts(files, path) for path in paths)
    return Weights(files=facts, parameter_count=sum(info.elements for header in headers for info in header.tensors))


def _file_facts(files: Files, path: str) -> FileFacts:
    entry = entry_of(files, path)
    return FileFacts(path=path, size_bytes=entry.size_bytes, sha256=entry.sha256 or _hash(files.local_path(path)))


def _hash(path: Path | None) -> str | None:
    return None if path is None else hash_file(path)


def _lock(files: Files, weights: Weights) -> tuple[LockFacts | None, tuple[str, ...], str | None]:
    """Returns the lock file if it is of these weights; otherwise what is wrong with it, and what to do about that."""
    text = _text(files, LOCK_FILE, limit_bytes=LARGEST_LOCK_BYTES)
    if text is None:
        return None, (), None
    try:
        lock = parse_lock(text)
    except CardError as error:
        return None, (f"{str(error).rstrip('.')}.",), error.hint
    if {(out.path, out.sha256) for out in lock.outputs} != {(file.path, file.sha256) for file in weights.files}:
        return None, (f"{LOCK_FILE} tells of other weights than those that are here.",), None
    return lock, (), None
