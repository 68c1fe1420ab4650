"""A merge published to a Hub repo: staged on a branch of its own, made visible by one commit.

Shards are committed as they are finished, to a folder named after the plan on a staging branch: that keeps them from
being swept as unreferenced uploads, and lets a later run see what has arrived. Publishing is ONE commit on the target
branch that copies the staged shards server-side, adds the small files and deletes the weights that the merge
replaces, guarded by the head that the target had when the run began. A pull request is its own staging branch:
readers of the target never see it.

Every step may be repeated: it first looks for what an earlier attempt, whose answer was lost on the way, has done.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from hubmerge.errors import PublishError
from hubmerge.publish.abandoned import SHARD_SUFFIX, staged_in_repo, told
from hubmerge.publish.plan_note import NOTE_FILE, PlanNote
from hubmerge.publish.publisher import KeptShard, Published, StagedShard
from hubmerge.publish.refusals import FAILURES, explain, moved_error, overtaken
from hubmerge.publish.workspace import Workspace
from hubmerge.version import __version__
from hubmerge.weights.hub_client import HASTY, PATIENT, check_token, retried
from hubmerge.weights.reference import is_revision
from hubmerge.weights.shards import FinishedShard

DEFAULT_BRANCH = "main"
FINGERPRINT_CHARACTERS = 12
INDEX_FILENAME = "model.safetensors.index.json"
NOTES_SUFFIX = ".notes.json"
"""Of the file beside a staged shard that holds its notes."""
WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json")
"""Files of the target that a new merge replaces as a whole; all others are kept unless the merge writes them."""

EXISTS = 409
CONFLICT = 412
"""To a staging branch: another run of the same merge has just committed to it."""

CommitOperation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete


@dataclass(frozen=True)
class HubTarget:
    """A repo to publish to.

    Attributes:
        private: Visibility of a repo that has to be created; None for the account's default. An existing repo keeps
            its own.
        create_pr: Open a pull request instead of committing to `revision`, which then must be main.
        message: Title of the commit or pull request.
        head: The commit, 40 hexadecimal digits, that `revision` must be at; None for any.
        kept: Shards of the merge that this commit holds; nobody makes or uploads them again.
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
        self._repo = target.repo_id
        self._token = token
        self._api = HfApi(token=token, library_name="hubmerge", library_version=__version__)
        self._branch = f"hubmerge/{fingerprint[:FINGERPRINT_CHARACTERS]}"
        self._staging_folder = f".{self._branch}"
        self._staging = self._branch
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
        with self._explained("read from"):
            found = retried(lambda: staged_in_repo(self._api, self._repo, without=self._branch), policy=HASTY)
        return [told(staging, self._note, where=self._repo) for staging in found]

    def _check_target(self) -> None:
        if self._target.create_pr and self._target.revision != DEFAULT_BRANCH:
            raise PublishError("a pull request goes to main", hint="Leave out --revision or --create-pr.")
        if "/" not in self._repo:
            raise PublishError(f"{self._repo!r} does not say whose repo it is", hint="Name it OWNER/NAME.")
        if not is_revision(self._target.revision):
            raise PublishError(f"{self._target.revision!r} cannot be a branch", hint="Name another --revision.")
        check_token(self._token, PublishError)

    def _open(self) -> dict[str, StagedShard]:
        self._create_repo()
        self._head = self._open_revision()
        if self._target.head not in (None, self._head):
            raise moved_error(self._repo)
        self._staging = self._open_pull_request() if self._target.create_pr else self._open_branch()
        kept = {each.shard.filename: each.shard for each in self._target.kept}
        return {**self._staged_shards(), **kept}

    def existing(self, path: str) -> bytes | None:
        """Returns a small file of the target branch at its head."""
        with self._explained("read from"):
            return retried(lambda: self._read(path), policy=HASTY)

    def _read(self, path: str) -> bytes | None:
        try:
            return Path(self._api.hf_hub_download(self._repo, path, revision=self._head)).read_bytes()
        except RemoteEntryNotFoundError:
            return None

    def stage(self, shard: FinishedShard, notes: bytes = b"") -> StagedShard:
        """Commits the shard to the staging branch and deletes the local file."""
        name = shard.path.name
        staged = StagedShard(name, shard.size_bytes, shard.sha256, notes)
        path = f"{self._staging_folder}/{name}"
        operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=shard.path), *self._noted()]
        if notes:
            operations.append(CommitOperationAdd(path_in_repo=path + NOTES_SUFFIX, path_or_fileobj=notes))
        with self._explained(f"upload {name} to"):
            try:
                # What has been uploaded stays marked in the operations: another attempt repeats the commit alone.
                retried(
                    lambda: self._commit(operations, message=f"Stage {name}", revision=self._staging),
                    policy=PATIENT,
                    passing=(CONFLICT,),
                )
            except RevisionNotFoundError:
                self._refuse_if_overtaken(staged)
                raise
        shard.path.unlink()
        return staged

    def _noted(self) -> list[CommitOperationAdd]:
        """Returns the addition of the note, with the first shard."""
        note, self._note_to_stage = self._note_to_stage, None
        path = f"{self._staging_folder}/{NOTE_FILE}"
        return [] if note is None else [CommitOperationAdd(path_in_repo=path, path_or_fileobj=note.render())]

    def _refuse_if_overtaken(self, shard: StagedShard) -> None:
        """Raises PublishError if another run has published this very merge, and removed what was staged for it."""
        head = self._head_of(self._target.revision)
        sha256s = {file.path: file.lfs.sha256 for file in self._files(head) if file.lfs is not None}
        if head != self._head and sha256s.get(shard.filename) == shard.sha256:
            raise overtaken(self._repo, self._page())

    def publish(self, shards: Sequence[StagedShard], files: Mapping[str, bytes]) -> Published:
        """Commits everything to the target in one step and removes what was staged."""
        with self._explained("publish to"):
            commit = self._publish_or_find(shards, files)
            if self._target.create_pr:
                return Published(self._open_for_review(), commit)
            self._remove_staging()
            return Published(self._page(), commit)

    def _publish_or_find(self, shards: Sequence[StagedShard], files: Mapping[str, bytes]) -> str:
        """Returns the commit, if need be that of another run of the same merge which was faster."""
        try:
            return retried(lambda: self._publish(shards, files), policy=PATIENT)
        except FAILURES:
            with suppress(*FAILURES):
                revision = self._staging if self._target.create_pr else self._target.revision
                if self._has_arrived(shards, revision, head := self._head_of(revision)):
                    return head
            raise

    def _publish(self, shards: Sequence[StagedShard], files: Mapping[str, bytes]) -> str:
        """Returns the commit that shows the merge to readers, or to the reviewers of the pull request."""
        revision = self._staging if self._target.create_pr else self._target.revision
        head = self._head_of(revision)
        if self._has_arrived(shards, revision, head):
            return head
        operations = [*self._copies(shards), *self._additions(files), *self._deletions(shards, head)]
        guard = head if self._target.create_pr else self._head
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of the card, known since the beginning
            return self._commit(operations, message=self._target.message, revision=revision, parent_commit=guard)

    def _has_arrived(self, shards: Sequence[StagedShard], revision: str, head: str) -> bool:
        """Returns whether the head of the branch is the commit of an earlier attempt."""
        if head == self._head:
            return False
        latest = self._api.list_repo_commits(self._repo, revision=revision)[0]
        if not self._target.message.startswith(latest.title):  # a title is the message's first line
            return False
        sha256s = {file.path: file.lfs.sha256 for file in self._files(head) if file.lfs is not None}
        return all(sha256s.get(shard.filename) == shard.sha256 for shard in shards)

    def close(self) -> None:
        """Removes the temporary folder; the staging branch stays until a run has published."""
        if self._workspace is not None:
            self._workspace.close()

    def _create_repo(self) -> None:
        try:
            self._api.repo_info(self._repo)
        except RepositoryNotFoundError:
            self._api.create_repo(self._repo, private=self._target.private, exist_ok=True)

    def _open_revision(self) -> str:
        """Returns the head of the target branch, which is made from main if it does not exist."""
        revision = self._target.revision
        refs = self._api.list_repo_refs(self._repo)
        heads = {branch.name: branch.target_commit for branch in refs.branches}
        if revision in heads:
            return heads[revision]
        if revision in [tag.name for tag in refs.tags]:
            raise PublishError(f"{revision} is a tag of {self._repo}, not a branch", hint="Name another --revision.")
        self._api.create_branch(self._repo, branch=revision)
        return self._head_of(revision)

    def _open_branch(self) -> str:
        """Returns the staging branch; a token that may not write is refused here even if the branch exists."""
        try:
            self._api.create_branch(self._repo, branch=self._branch, revision=self._head)
        except HfHubHTTPError as error:
            if error.response.status_code != EXISTS:
                raise
        return self._branch

    def _open_pull_request(self) -> str:
        """Returns the ref of the draft pull request that this plan staged to before, or of a new one."""
        for pull in self._api.get_repo_discussions(self._repo, discussion_type="pull_request"):
            # Anybody may write such a title; only a pull request of one's own holds one's own shards.
            if pull.status in ("draft", "open") and self._branch in pull.title and pull.author == self._account():
                return str(pull.git_reference)
        title = f"{self._target.message} ({self._branch})"
        return str(self._api.create_pull_request(self._repo, title=title).git_reference)

    def _account(self) -> str:
        return str(self._api.whoami()["name"])

    def _staged_shards(self) -> dict[str, StagedShard]:
        prefix = f"{self._staging_folder}/"
        files = {file.path: file for file in self._files(self._staging) if file.path.startswith(prefix)}
        return {
            (name := path.removeprefix(prefix)): StagedShard(name, file.size, file.lfs.sha256, self._notes(path, files))
            for path, file in files.items()
            if path.endswith(SHARD_SUFFIX) and file.lfs is not None
        }

    def _notes(self, shard: str, staged: Mapping[str, RepoFile]) -> bytes:
        path = shard + NOTES_SUFFIX
        if path not in staged:
            return b""
        return Path(self._api.hf_hub_download(self._repo, path, revision=self._staging)).read_bytes()

    def _files(self, revision: str) -> Iterator[RepoFile]:
        for entry in self._api.list_repo_tree(self._repo, recursive=True, revision=revision):
            if isinstance(entry, RepoFile):
                yield entry

    def _copies(self, shards: Sequence[StagedShard]) -> list[CommitOperation]:
        sources = {each.shard.filename: each.source for each in self._target.kept}
        return [
            CommitOperationCopy(sources[name], name, src_revision=self._head)
            if name in sources
            else CommitOperationCopy(f"{self._staging_folder}/{name}", name, src_revision=self._staging)
            for name in (shard.filename for shard in shards)
        ]

    def _additions(self, files: Mapping[str, bytes]) -> list[CommitOperation]:
        return [CommitOperationAdd(path_in_repo=name, path_or_fileobj=files[name]) for name in sorted(files)]

    def _deletions(self, shards: Sequence[StagedShard], head: str) -> list[CommitOperation]:
        """Returns the deletion of what was staged in a pull request, and of the weights that the merge replaces.

        A loader would mix old weights with the new ones.
        """
        new = {shard.filename for shard in shards} | ({INDEX_FILENAME} if len(shards) > 1 else set())
        paths = [file.path for file in self._files(head)]
        old = sorted(path for path in paths if "/" not in path and path not in new)
        folder = f"{self._staging_folder}/"
        has_staged = self._target.create_pr and any(path.startswith(folder) for path in paths)
        staged = [CommitOperationDelete(folder, is_folder=True)] if has_staged else []
        return [*staged, *(CommitOperationDelete(path) for path in old if path.endswith(WEIGHT_SUFFIXES))]

    def _open_for_review(self) -> str:
        """Returns the page of the pull request, which is a draft no longer."""
        number = int(self._staging.rsplit("/", 1)[1])
        retried(lambda: self._rename_and_open(number), policy=PATIENT)
        return f"{self._address()}/discussions/{number}"

    def _rename_and_open(self, number: int) -> None:
        self._api.rename_discussion(self._repo, discussion_num=number, new_title=self._target.message)
        self._api.change_discussion_status(self._repo, discussion_num=number, new_status="open")

    def _remove_staging(self) -> None:
        with suppress(*FAILURES):  # a branch that stays behind does not undo what has been published
            retried(lambda: self._api.delete_branch(self._repo, branch=self._staging), policy=HASTY)

    def _commit(
        self, operations: Sequence[Any], *, message: str, revision: str, parent_commit: str | None = None
    ) -> str:
        commit = self._api.create_commit(
            self._repo,
            operations=operations,
            commit_message=message,
            revision=revision,
            parent_commit=parent_commit,
        )
        return str(commit.oid)

    def _head_of(self, revision: str) -> str:
        return str(self._api.repo_info(self._repo, revision=revision).sha)

    def _page(self) -> str:
        if self._target.revision == DEFAULT_BRANCH:
            return self._address()
        return f"{self._address()}/tree/{quote(self._target.revision, safe='')}"

    def _address(self) -> str:
        return f"{self._api.endpoint}/{self._repo}"

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turns the Hub's refusals into sentences."""
        try:
            yield
        except FAILURES as error:
            raise explain(error, self._repo, action, token=self._token, was_open=self._is_open) from error
