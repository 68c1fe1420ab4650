"""A merge published to a Hub repo: staged on a branch of its own, made visible by one commit.

Shards are committed as they are finished, to a folder named after the plan on a staging branch: that keeps them from
being swept as unreferenced uploads, and lets a later run see what has arrived. Publishing is ONE commit on the target
branch that copies the staged shards server-side, adds the small files and deletes the weights that the merge
replaces, guarded by the head that the target had when the run began. A pull request is its own staging branch:
readers of the target never see it.

Every step may be repeated: it first looks for what an earlier attempt, whose answer was lost on the way, has done.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from hubmerge.errors import PublishError
from hubmerge.publish.abandoned import BRANCH_PREFIX, SHARD_SUFFIX, staged_in_repo, told
from hubmerge.publish.hub_repo import CommitOperation, HubRepo
from hubmerge.publish.plan_note import NOTE_FILE, PlanNote
from hubmerge.publish.publisher import KeptShard, Published, StagedShard
from hubmerge.publish.refusals import FAILURES, explain, moved_error, overtaken
from hubmerge.publish.workspace import Workspace
from hubmerge.weights.checkpoint import DEFAULT_BRANCH
from hubmerge.weights.hub_client import HASTY, PATIENT, check_token, retried
from hubmerge.weights.reference import is_revision
from hubmerge.weights.shards import FinishedShard

FINGERPRINT_CHARACTERS = 12
INDEX_FILENAME = "model.safetensors.index.json"
NOTES_SUFFIX = ".notes.json"
"""Of the file beside a staged shard that holds its notes."""
WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json")
"""Files of the target that a new merge replaces as a whole; all others are kept unless the merge writes them."""

CONFLICT = 412
"""To a staging branch: another run of the same merge has just committed to it."""


@dataclass(frozen=True)
class HubTarget:
    """A repo to publish to.

    Attributes:
        private: Visibility of a repo that has to be created; None for the account's default. An existing repo keeps
            its own.
        create_pr: Open a pull request instead of committing to `revision`, which then must be main.
        message: Title of the commit or pull request.
        head: The commit, 40 hexadecimal digits, that `revision` must be at; None for any.
        kept: Shards of the merge that this commit holds; nobody makes or uploads them again. If it holds all the rest
            to the byte as well, no pull request is opened.
    """

    repo_id: str
    message: str
    revision: str = DEFAULT_BRANCH
    private: bool | None = None
    create_pr: bool = False
    head: str | None = None
    kept: Sequence[KeptShard] = ()


class HubPublisher:
    """Publishes one merge to one repo.

    Args:
        fingerprint: The plan's; names the staging branch.
        note: What the plan is; staged with the first shard, for those who find the branch.
        token: A token that may write; None for the one that the user logged in with.
    """

    def __init__(
        self, target: HubTarget, *, fingerprint: str, note: PlanNote | None = None, token: str | None = None
    ) -> None:
        self._target = target
        self._note = note
        self._token = token
        self._hub = HubRepo(target.repo_id, token=token)
        self._branch = f"{BRANCH_PREFIX}{fingerprint[:FINGERPRINT_CHARACTERS]}"
        self._staging_folder = f".{self._branch}"
        self._opened_staging: str | None = None
        self._head = ""
        self._note_to_stage = note
        self._is_open = False
        self._workspace: Workspace | None = None

    @property
    def workspace(self) -> Path:
        """A temporary folder (TMPDIR chooses the disk), there from `open` to `close`."""
        assert self._workspace is not None, "open comes first"
        return self._workspace.path

    def open(self) -> Mapping[str, StagedShard]:
        """Creates the repo and the staging branch if need be; what a token may not do is found out here."""
        self._check_target()
        with self._explained("open"):
            self._workspace = Workspace()
            staged = retried(self._open, policy=HASTY)
        self._is_open = True
        return staged

    def leftovers(self) -> list[str]:
        """Returns what is staged in the repo for other plans, one sentence each."""
        repo = self._hub.id
        with self._explained("read from"):
            found = retried(lambda: staged_in_repo(self._hub.api, repo, without=self._branch), policy=HASTY)
        return [told(staging, self._note, where=repo) for staging in found]

    def existing(self, path: str) -> bytes | None:
        """Returns a small file of the target branch at its head."""
        with self._explained("read from"):
            return retried(lambda: self._hub.read(path, revision=self._head), policy=HASTY)

    def stage(self, shard: FinishedShard, notes: bytes = b"") -> StagedShard:
        """Commits the shard to the staging branch and deletes the local file."""
        staged = StagedShard(shard.path.name, shard.size_bytes, shard.sha256, notes)
        with self._explained(f"upload {staged.filename} to"):
            try:
                self._stage(shard, notes)
            except RevisionNotFoundError:
                self._refuse_if_overtaken(staged)
                raise
        shard.path.unlink()
        return staged

    def publish(self, shards: Sequence[StagedShard], files: Mapping[str, bytes]) -> Published:
        """Commits everything to the target in one step and removes what was staged."""
        with self._explained("publish to"):
            if self._has_nothing_to_propose(shards, files):
                return Published(self._hub.page(self._target.revision), self._head)
            self._open_staging()
            commit = self._publish_or_find(shards, files)
            if self._target.create_pr:
                retried(lambda: self._hub.release_draft(self._staging, title=self._target.message), policy=PATIENT)
                return Published(self._hub.page(self._staging), commit)
            self._remove_staging()
            return Published(self._hub.page(self._target.revision), commit)

    def close(self) -> None:
        """Removes the temporary folder; the staging branch stays until a run has published."""
        if self._workspace is not None:
            self._workspace.close()

    def _check_target(self) -> None:
        repo, revision = self._hub.id, self._target.revision
        if self._target.create_pr and revision != DEFAULT_BRANCH:
            raise PublishError("a pull request goes to main", hint="Leave out --revision or --create-pr.")
        if "/" not in repo:
            raise PublishError(f"{repo!r} does not say whose repo it is", hint="Name it OWNER/NAME.")
        if not is_revision(revision):
            raise PublishError(f"{revision!r} cannot be a branch", hint="Name another --revision.")
        check_token(self._token, PublishError)

    def _open(self) -> dict[str, StagedShard]:
        self._hub.create(private=self._target.private)
        self._head = self._hub.open_branch(self._target.revision)
        if self._target.head not in (None, self._head):
            raise moved_error(self._hub.id)
        self._opened_staging = self._open_or_find_staging()
        kept = {each.shard.filename: each.shard for each in self._target.kept}
        return {**self._staged_shards(), **kept}

    def _open_or_find_staging(self) -> str | None:
        """Returns the staging branch, or the draft; None if what is kept of the target may be all there is."""
        if not self._target.create_pr:
            return self._hub.open_staging_branch(self._branch, head=self._head)
        if self._target.kept:
            return self._hub.find_draft(self._branch)
        return self._hub.open_draft(self._branch, title=self._target.message)

    def _open_staging(self) -> None:
        """Opens the draft if `open` has left that until there is something to propose."""
        if self._opened_staging is None:
            title = self._target.message
            self._opened_staging = retried(lambda: self._hub.open_draft(self._branch, title=title), policy=PATIENT)

    @property
    def _staging(self) -> str:
        assert self._opened_staging is not None, "opened before it is written to"
        return self._opened_staging

    def _staged_shards(self) -> dict[str, StagedShard]:
        if self._opened_staging is None:
            return {}
        prefix = f"{self._staging_folder}/"
        files = {file.path: file for file in self._hub.files(self._staging) if file.path.startswith(prefix)}
        return {
            (name := path.removeprefix(prefix)): StagedShard(name, file.size, file.lfs.sha256, self._notes(path, files))
            for path, file in files.items()
            if path.endswith(SHARD_SUFFIX) and file.lfs is not None
        }

    def _notes(self, shard: str, staged: Mapping[str, RepoFile]) -> bytes:
        path = shard + NOTES_SUFFIX
        return b"" if path not in staged else self._hub.read(path, revision=self._staging) or b""

    def _stage(self, shard: FinishedShard, notes: bytes) -> None:
        self._open_staging()
        name = shard.path.name
        path = f"{self._staging_folder}/{name}"
        operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=shard.path), *self._noted()]
        if notes:
            operations.append(CommitOperationAdd(path_in_repo=path + NOTES_SUFFIX, path_or_fileobj=notes))
        # What has been uploaded stays marked in the operations: another attempt repeats the commit alone.
        retried(
            lambda: self._hub.commit(operations, message=f"Stage {name}", revision=self._staging),
            policy=PATIENT,
            passing=(CONFLICT,),
        )

    def _noted(self) -> list[CommitOperationAdd]:
        """Returns the addition of the note, with the first shard."""
        note, self._note_to_stage = self._note_to_stage, None
        path = f"{self._staging_folder}/{NOTE_FILE}"
        return [] if note is None else [CommitOperationAdd(path_in_repo=path, path_or_fileobj=note.render())]

    def _refuse_if_overtaken(self, shard: StagedShard) -> None:
        """Raises PublishError if another run has published this very merge, and removed what was staged for it."""
        revision = self._target.revision
        head = self._hub.head_of(revision)
        if head != self._head and self._hub.sha256s(head).get(shard.filename) == shard.sha256:
            raise overtaken(self._hub.id, self._hub.page(revision))

    @property
    def _published_revision(self) -> str:
        """Where the commit goes that shows the merge to readers, or to the reviewers of the pull request."""
        return self._staging if self._target.create_pr else self._target.revision

    def _publish_or_find(self, shards: Sequence[StagedShard], files: Mapping[str, bytes]) -> str:
        """Returns the commit, if need be that of another run of the same merge which was faster."""
        try:
            return retried(lambda: self._publish(shards, files), policy=PATIENT)
        except FAILURES:
            with suppress(*FAILURES):
                if self._has_arrived(shards, head := self._hub.head_of(self._published_revision)):
                    return head
            raise

    def _publish(self, shards: Sequence[StagedShard], files: Mapping[str, bytes]) -> str:
        revision = self._published_revision
        head = self._hub.head_of(revision)
        if self._has_arrived(shards, head):
            return head
        operations = [*self._copies(shards), *_additions(files), *self._deletions(shards, head)]
        guard = head if self._target.create_pr else self._head
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of the card, known since the beginning
            return self._hub.commit(operations, message=self._target.message, revision=revision, parent=guard)

    def _has_nothing_to_propose(self, shards: Sequence[StagedShard], files: Mapping[str, bytes]) -> bool:
        """Returns whether the pull request, which is not open, would change nothing."""
        if self._opened_staging is not None:
            return False
        return retried(lambda: self._is_there(shards, files), policy=PATIENT)

    def _is_there(self, shards: Sequence[StagedShard], files: Mapping[str, bytes]) -> bool:
        """Returns whether the target has all of it to the byte, and nothing that would be deleted."""
        found = {file.path: file for file in self._hub.files(self._head)}
        large = {path: file.lfs.sha256 for path, file in found.items() if file.lfs is not None}
        return (
            all(large.get(shard.filename) == shard.sha256 for shard in shards)
            and all(path in found and _holds(found[path], content) for path, content in files.items())
            and not self._deletions(shards, self._head)
        )

    def _has_arrived(self, shards: Sequence[StagedShard], head: str) -> bool:
        """Returns whether this head of the branch is the commit of an earlier attempt."""
        if head == self._head:
            return False
        # A title is the message's first line.
        if not self._target.message.startswith(self._hub.title_of(self._published_revision)):
            return False
        sha256s = self._hub.sha256s(head)
        return all(sha256s.get(shard.filename) == shard.sha256 for shard in shards)

    def _copies(self, shards: Sequence[StagedShard]) -> list[CommitOperation]:
        sources = {each.shard.filename: each.source for each in self._target.kept}
        return [
            CommitOperationCopy(sources[name], name, src_revision=self._head)
            if name in sources
            else CommitOperationCopy(f"{self._staging_folder}/{name}", name, src_revision=self._staging)
            for name in (shard.filename for shard in shards)
        ]

    def _deletions(self, shards: Sequence[StagedShard], head: str) -> list[CommitOperation]:
        """Returns the deletion of what was staged in a pull request, and of the weights that the merge replaces.

        A loader would mix old weights with the new ones.
        """
        new = {shard.filename for shard in shards} | ({INDEX_FILENAME} if len(shards) > 1 else set())
        paths = [file.path for file in self._hub.files(head)]
        old = sorted(path for path in paths if "/" not in path and path not in new)
        folder = f"{self._staging_folder}/"
        has_staged = self._target.create_pr and any(path.startswith(folder) for path in paths)
        staged = [CommitOperationDelete(folder, is_folder=True)] if has_staged else []
        return [*staged, *(CommitOperationDelete(path) for path in old if path.endswith(WEIGHT_SUFFIXES))]

    def _remove_staging(self) -> None:
        with suppress(*FAILURES):  # a branch that stays behind does not undo what has been published
            retried(lambda: self._hub.delete_branch(self._staging), policy=HASTY)

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turns the Hub's refusals into sentences."""
        try:
            yield
        except FAILURES as error:
            raise explain(error, self._hub.id, action, token=self._token, was_open=self._is_open) from error


def _holds(file: RepoFile, content: bytes) -> bool:
    if file.lfs is not None:
        return str(file.lfs.sha256) == hashlib.sha256(content).hexdigest()
    return str(file.blob_id) == git_hash(content)


def _additions(files: Mapping[str, bytes]) -> list[CommitOperation]:
    return [CommitOperationAdd(path_in_repo=name, path_or_fileobj=files[name]) for name in sorted(files)]
