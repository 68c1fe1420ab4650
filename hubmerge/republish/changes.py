"""What is different about a parent, by the hashes of its files: then as the lock file has them, now as the Hub does."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from hubmerge.card.facts import ChangeFacts, ParentChange
from hubmerge.card.lock import DeclaredLicence, LockedFile, LockedParent
from hubmerge.merge.side_files import OTHER_FILES
from hubmerge.tokenizer import TOKENIZER_FILES
from hubmerge.weights.checkpoint import ADAPTER_CONFIG_FILE, CONFIG_FILE
from hubmerge.weights.files import FileEntry
from hubmerge.weights.reference import ModelRef


class Change(Enum):
    """One way in which a parent may be different; the value is how people read it."""

    DOCS = "docs"
    TOKENIZER = "tokenizer"
    CONFIG = "config"
    WEIGHTS = "weights"
    LICENCE = "licence"
    GATED = "gated now"
    RENAMED = "renamed"
    GONE = "gone"
    ADDED = "new in the recipe"
    REMOVED = "no longer in the recipe"
    FOLDER = "a folder, not looked at"


HARMLESS = frozenset({Change.DOCS, Change.RENAMED, Change.FOLDER})
"""What another merge would not differ by."""

GRAVE = frozenset({Change.LICENCE, Change.GATED, Change.GONE})
"""What a person has to look at before the merge is made again."""

PATTERNS = {
    Change.WEIGHTS: ("*.safetensors", "*.safetensors.index.json"),
    Change.TOKENIZER: TOKENIZER_FILES,
    Change.CONFIG: (CONFIG_FILE, ADAPTER_CONFIG_FILE, *OTHER_FILES),
}
"""Files that a merge reads; a pattern's `*` does not reach into folders. All others are documentation to it."""


@dataclass(frozen=True, kw_only=True)
class ParentNow:
    """A parent as the recipe names it and the Hub has it.

    Attributes:
        sha: None for a folder, or where nothing can be read.
        hashes: Of its files by path, see `file_hash`.
        declared: None where it was not looked up since the card is the same.
        name: The id that the repo has today.
        problem: Why nothing of it can be read, as a sentence without a full stop; None if it can.
    """

    ref: ModelRef
    sha: str | None = None
    hashes: Mapping[str, str | None]
    declared: DeclaredLicence | None = None
    is_gated: bool = False
    name: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class ParentStatus:
    """What is different about one parent.

    Attributes:
        label: The parent as the recipe writes it; one that is not in the recipe any more as `org/name`.
        repo_id: None for a folder.
        old_sha: The commit that was merged.
        new_sha: The commit that would be merged now.
        changes: In the order of `Change`; none if all is as it was.
        details: What there is to say of them, whole sentences without a full stop.
    """

    label: str
    repo_id: str | None
    old_sha: str | None
    new_sha: str | None
    changes: tuple[Change, ...]
    details: tuple[str, ...] = ()

    @property
    def is_stale(self) -> bool:
        """Whether another merge would differ by this parent, or cannot be made without a word of a person."""
        return not HARMLESS.issuperset(self.changes)

    @property
    def is_grave(self) -> bool:
        """Whether a person has to look at it."""
        return not GRAVE.isdisjoint(self.changes)

    @property
    def words(self) -> tuple[str, ...]:
        """The changes as people read them."""
        return tuple(change.value for change in self.changes)


@dataclass(frozen=True, kw_only=True)
class MergeStatus:
    """A merge compared with what it would be if it were made now.

    Attributes:
        name: The repo, or the file of the recipe.
        sha: The commit of the merge; None on this disk.
        parents: All of them.
    """

    name: str
    sha: str | None
    is_recipe_changed: bool
    parents: tuple[ParentStatus, ...]

    @property
    def is_stale(self) -> bool:
        """Whether it is out of date."""
        return self.is_recipe_changed or any(parent.is_stale for parent in self.parents)

    @property
    def is_changed(self) -> bool:
        """Whether anything is different, documentation included."""
        return self.is_recipe_changed or any(parent.changes for parent in self.parents)


def compare(locked: Sequence[LockedParent], parents: Iterable[ParentNow]) -> tuple[ParentStatus, ...]:
    """Returns the status of every parent: first those of the recipe, then those that it named when it was merged."""
    now = tuple(parents)
    compared = tuple(_compared(locked_for(each.ref, locked), each) for each in now)
    named = {each.ref.path for each in now}
    removed = (parent for parent in locked if parent.repo_id and parent.repo_id not in named)
    return compared + tuple(_removed(parent) for parent in removed)


def locked_for(ref: ModelRef, locked: Sequence[LockedParent]) -> LockedParent | None:
    """Returns what is recorded of the parent that a recipe names: with the same revision if there are several."""
    same = [parent for parent in locked if parent.repo_id == ref.path]
    return next((parent for parent in same if parent.revision == ref.revision), next(iter(same), None))


def change_facts(status: MergeStatus) -> ChangeFacts:
    """Returns what the card of the next merge says of the difference."""
    assert status.sha is not None, "what is republished is in a repo"
    return ChangeFacts(
        previous_sha=status.sha,
        is_recipe_changed=status.is_recipe_changed,
        parents=tuple(
            ParentChange(repo_id=parent.repo_id, old_sha=parent.old_sha, new_sha=parent.new_sha, kinds=parent.words)
            for parent in status.parents
            if parent.changes and parent.repo_id
        ),
    )


def file_hash(file: FileEntry | LockedFile) -> str | None:
    """Returns what tells a file's content from any other: its SHA-256 or git's hash; None on disk."""
    return file.sha256 or file.blob_id


def _compared(then: LockedParent | None, now: ParentNow) -> ParentStatus:
    changes = tuple(dict.fromkeys(_changes(then, now)))
    return ParentStatus(
        label=str(now.ref),
        repo_id=None if now.ref.is_local else now.ref.path,
        old_sha=then.sha if then else None,
        new_sha=now.sha,
        changes=tuple(change for change in Change if change in changes),
        details=tuple(_details(then, now, changes)),
    )


def _changes(then: LockedParent | None, now: ParentNow) -> Iterator[Change]:
    if now.ref.is_local:
        yield Change.FOLDER
        return
    if then is None:
        yield Change.ADDED
    if now.problem is not None:
        yield Change.GATED if now.is_gated else Change.GONE
        return
    if now.name not in (None, now.ref.path):
        yield Change.RENAMED
    if then is not None:
        yield from _differences(then, now)


def _differences(then: LockedParent, now: ParentNow) -> Iterator[Change]:
    if now.is_gated and then.gated is False:
        yield Change.GATED
    if None not in (then.declared, now.declared) and then.declared != now.declared:
        yield Change.LICENCE
    before = {file.path: file_hash(file) for file in then.files}
    for path in before.keys() | now.hashes.keys():
        if before.get(path) != now.hashes.get(path):
            yield _kind(path)


def _kind(path: str) -> Change:
    for change, patterns in PATTERNS.items():
        if any(fnmatch.fnmatchcase(path, each) and path.count("/") == each.count("/") for each in patterns):
            return change
    return Change.DOCS


def _details(then: LockedParent | None, now: ParentNow, changes: Sequence[Change]) -> Iterator[str]:
    if now.problem is not None:
        yield now.problem
    if Change.RENAMED in changes:
        yield f"{now.ref.path} is called {now.name} now"
    if Change.GATED in changes and now.problem is None:
        yield f"{now.ref.path} asks its readers to accept terms now"
    if Change.LICENCE in changes and then is not None:
        yield f"{now.ref.path} declares {_title(now.declared)} now, and declared {_title(then.declared)}"


def _title(declared: DeclaredLicence | None) -> str:
    if declared is None or declared.license is None:
        return "no licence"
    named = f"{declared.license} ({declared.name})" if declared.name else declared.license
    return f"{named} at {declared.link}" if declared.link else named


def _removed(parent: LockedParent) -> ParentStatus:
    assert parent.repo_id is not None, "a folder is not told from others"
    return ParentStatus(
        label=parent.repo_id, repo_id=parent.repo_id, old_sha=parent.sha, new_sha=None, changes=(Change.REMOVED,)
    )
