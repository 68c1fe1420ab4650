"""Whether a merge is still what its recipe makes of its parents: asked from the Hub, without reading weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hubmerge.card.lock import LARGEST_LOCK_BYTES, LOCK_FILE, DeclaredLicence, LockedParent, LockFacts, parse_lock
from hubmerge.card.parents import parent_facts
from hubmerge.errors import CardError, SourceError
from hubmerge.existing.found import FoundMerge, open_merged
from hubmerge.lineage.fetch import HubReader
from hubmerge.lineage.graph import State
from hubmerge.lineage.names import NamedModel
from hubmerge.merge.describe import declared_licence
from hubmerge.merge.plan import model_refs
from hubmerge.merge.recipe import Recipe, load_recipe
from hubmerge.republish.changes import MergeStatus, ParentNow, compare, file_hash, locked_for
from hubmerge.weights.checkpoint import CARD_FILE, CARD_LIMIT_BYTES
from hubmerge.weights.files import FileEntry, Files
from hubmerge.weights.front_matter import parse_front_matter
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.snapshot import Snapshot, open_snapshot

QUESTIONS_AT_A_TIME = 8


@dataclass(frozen=True)
class Prospect:
    """A recipe that nothing has been made of: the parents that it would be made from now."""

    parents: tuple[ParentNow, ...]


def merge_status(name: str, *, token: str | bool | None = None) -> MergeStatus:
    """Returns how a published merge, or one in a folder, compares with its parents as they are now.

    Args:
        name: `org/name`, `org/name@revision` or a folder.
        token: For reading; None for the stored token if there is one, False for none.

    Raises:
        SourceError: It cannot be read, or hubmerge did not make it.
        TransferError: The Hub does not answer.
    """
    with open_merged(name, token=token) as merge:
        return status_of(merge, token=token)


def status_of(merge: FoundMerge, *, token: str | bool | None = None) -> MergeStatus:
    """Returns what `merge_status` does of a merge that is open."""
    lock, recipe = known(merge)
    parents = parents_now(recipe, lock.parents, token=token)
    return MergeStatus(
        name=str(merge.ref),
        sha=merge.sha,
        is_recipe_changed=is_edited(merge.recipe_text, lock),
        parents=compare(lock.parents, parents),
    )


def recipe_status(path: Path, *, token: str | bool | None = None, lenient: bool = False) -> MergeStatus | Prospect:
    """Returns how a recipe compares with the lock file beside it, or where there is none what it would be made from.

    Args:
        path: The recipe.
        token: For reading; None for the stored token if there is one, False for none.
        lenient: Whether unknown keys of the recipe are warnings.

    Raises:
        RecipeError: The recipe is wrong.
        CardError: The lock file cannot be read.
        TransferError: The Hub does not answer.
    """
    recipe = load_recipe(path, lenient=lenient)
    lock = _lock_beside(path)
    if lock is None:
        return Prospect(parents_now(recipe, (), token=token))
    return MergeStatus(
        name=str(path),
        sha=None,
        is_recipe_changed=is_edited(recipe.text, lock),
        parents=compare(lock.parents, parents_now(recipe, lock.parents, token=token)),
    )


def known(merge: FoundMerge) -> tuple[LockFacts, Recipe]:
    """Returns the lock file and the recipe of a merge.

    Raises:
        SourceError: Somebody else made it, or changed it since, or its recipe is not understood.
    """
    if merge.recipe is None:
        raise SourceError(f"{merge.ref}: {merge.notes[0].rstrip('.')}")
    if merge.lock is None:
        notes = [note for note in merge.notes if note.startswith(LOCK_FILE)]
        reason = notes[0].rstrip(".") if notes else f"it has no {LOCK_FILE}"
        raise SourceError(
            f"nobody recorded at which commits the parents of {merge.ref} were merged: {reason}",
            hint=merge.lock_hint
            or "Make it again once from its recipe: hubmerge merge-and-push mergekit_config.yml "
            f"{merge.repo_id or 'YOUR_NAME/YOUR_MODEL'}",
        )
    return merge.lock, merge.recipe


def is_edited(recipe_text: str, lock: LockFacts) -> bool:
    """Returns whether a recipe is another than the one that was merged; not, where nobody recorded that one."""
    return lock.recipe_sha256 not in (None, hashlib.sha256(recipe_text.encode()).hexdigest())


def parents_now(recipe: Recipe, locked: Sequence[LockedParent], *, token: str | bool | None) -> tuple[ParentNow, ...]:
    """Returns every model and adapter that a recipe names, at any depth, as the Hub has it.

    Raises:
        TransferError: The Hub does not answer.
    """
    refs = (part for ref in model_refs(recipe) for part in (ref.without_adapter, ref.adapter) if part is not None)
    with ThreadPoolExecutor(QUESTIONS_AT_A_TIME, "hubmerge-parents") as pool:
        return tuple(pool.map(lambda ref: _look(ref, locked_for(ref, locked), token=token), dict.fromkeys(refs)))


def _lock_beside(path: Path) -> LockFacts | None:
    file = path.parent / LOCK_FILE
    if not file.is_file():
        return None
    if file.stat().st_size > LARGEST_LOCK_BYTES:
        raise CardError(f"{file} is larger than {LARGEST_LOCK_BYTES:,} bytes")
    return parse_lock(file.read_text(encoding="utf-8", errors="replace"))


def _look(ref: ModelRef, then: LockedParent | None, *, token: str | bool | None) -> ParentNow:
    if ref.is_local:
        return ParentNow(ref=ref, hashes={})
    try:
        snapshot = open_snapshot(ref, token=token)
        with closing(snapshot.files):
            return _seen(ref, snapshot, then)
    except SourceError as error:
        found = HubReader(token=token).find(NamedModel(str(ref), ref.path, ref.revision))
        return ParentNow(ref=ref, hashes={}, is_gated=found.state is State.GATED, problem=str(error))


def _seen(ref: ModelRef, snapshot: Snapshot, then: LockedParent | None) -> ParentNow:
    return ParentNow(
        ref=ref,
        sha=snapshot.sha,
        hashes=_hashes(snapshot.files),
        declared=_declared(snapshot.files, then),
        is_gated=snapshot.gated,
        name=snapshot.repo_id,
    )


def _hashes(files: Files) -> dict[str, str | None]:
    return {path: file_hash(entry) for path, entry in files.entries().items()}


def _declared(files: Files, then: LockedParent | None) -> DeclaredLicence | None:
    """Returns what the card declares; the card is read only if it is another one than then."""
    entry = files.entries().get(CARD_FILE)
    locked = next((file for file in then.files if file.path == CARD_FILE), None) if then else None
    if entry is not None and locked is not None and file_hash(entry) == file_hash(locked):
        return then.declared if then else None
    card = _card(files, entry)
    return declared_licence(parent_facts(parse_front_matter(card), label="", role=""))


def _card(files: Files, entry: FileEntry | None) -> bytes:
    if entry is None or entry.size_bytes > CARD_LIMIT_BYTES:
        return b""
    return files.read(CARD_FILE, 0, entry.size_bytes)
