"""A merge published to a Hub repo: staged on a branch of its own, made visible by one commit.

Shards are committed as they are finished, to a folder named after the plan on a staging branch: that keeps them from
being swept as unreferenced uploads, and lets a later run see what has arrived. Publishing is ONE commit on the target
branch that copies the staged shards server-side, adds the small files and deletes the weights that the merge
replaces, guarded by the head that the target had when the run began. A pull request is its own staging branch:
readers of the target never see it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from hubmerge.errors import PublishError, TargetMovedError
from hubmerge.publish.publisher import Published, StagedShard
from hubmerge.weights.shards import FinishedShard

FINGERPRINT_CHARACTERS = 12
STAGE_ATTEMPTS = 4
RETRY_SECONDS = 1.0
"""Before the first retry of a staging commit; doubled each time. The client itself retries uploads, but not commits."""
INDEX_FILENAME = "model.safetensors.index.json"
WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json")
"""Files of the target that a new merge replaces as a whole; all others are kept unless the merge writes them."""

CommitOperation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete


@dataclass(frozen=True)
class HubTarget:
    """A repo to publish to.

    Attributes:
        private: Visibility of a repo that has to be created; None for the account's default. An existing repo keeps
            its own.
        create_pr: Open a pull request instead of committing to `revision`.
        message: Title of the commit or pull request.
    """

    repo_id: str
    message: str
    revision: str = "main"
    private: bool | None = None
    create_pr: bool = False


class HubPublisher:
    """Publishes one merge to one repo.

    Args:
        fingerprint: The plan's; names the staging branch.
        token: A token that may write; None for the one that the user logged in with.
    """

    def __init__(self, target: HubTarget, *, fingerprint: str, token: str | None = None) -> None:
        self._target = target
        self._api = HfApi(token=token, library_name="hubmerge")
        self._branch = f"hubmerge/{fingerprint[:FINGERPRINT_CHARACTERS]}"
        self._staging_folder = f".{self._branch}"
        self._staging = self._branch
        self._head = ""
        self._temporary = tempfile.TemporaryDirectory(prefix="hubmerge-")

    @property
    def workspace(self) -> Path:
        """A temporary folder (TMPDIR chooses the disk)."""
        return Path(self._temporary.name)

    def open(self) -> Mapping[str, StagedShard]:
        """Creates the repo and the staging branch if need be; what a token may not do is found out here."""
        with self._explained("open"):
            self._create_repo()
            self._head = self._open_revision()
            self._staging = self._open_pull_request() if self._target.create_pr else self._open_branch()
            return self._staged_shards()

    def existing(self, path: str) -> bytes | None:
        """Returns a small file of the target branch at its head."""
        with self._explained("read from"):
            if not self._api.file_exists(self._target.repo_id, path, revision=self._head):
                return None
            return Path(self._api.hf_hub_download(self._target.repo_id, path, revision=self._head)).read_bytes()

    def stage(self, shard: FinishedShard) -> StagedShard:
        """Commits the shard to the staging branch and deletes the local file."""
        name = shard.path.name
        with self._explained(f"upload {name} to"):
            self._stage(shard.path)
        shard.path.unlink()
        return StagedShard(name, shard.size_bytes, shard.sha256)

    def _stage(self, path: Path) -> None:
        """Uploads and commits a shard; repeating that is harmless, so server errors are retried."""
        for attempt in range(STAGE_ATTEMPTS):
            add = CommitOperationAdd(path_in_repo=f"{self._staging_folder}/{path.name}", path_or_fileobj=path)
            try:
                self._commit([add], message=f"Stage {path.name}", revision=self._staging)
            except HfHubHTTPError as error:
                if not _is_server_error(error) or attempt == STAGE_ATTEMPTS - 1:
                    raise
                time.sleep(RETRY_SECONDS * 2**attempt)
            else:
                return

    def publish(self, shards: Sequence[StagedShard], files: Mapping[str, bytes]) -> Published:
        """Commits everything to the target in one step and removes what was staged."""
        with self._explained("publish to"):
            operations = [*self._copies(shards), *self._additions(files), *self._deletions(shards)]
            if self._target.create_pr:
                return self._publish_pull_request(operations)
            commit = self._publish_commit(operations, shards)
            self._api.delete_branch(self._target.repo_id, branch=self._staging)
            return Published(self._page(), commit)

    def _publish_commit(self, operations: list[CommitOperation], shards: Sequence[StagedShard]) -> str:
        """Returns the new head; a commit whose answer was lost on the way counts if the target shows it."""
        revision = self._target.revision
        try:
            commit = self._commit(operations, message=self._target.message, revision=revision, parent_commit=self._head)
        except HfHubHTTPError as error:
            if _is_server_error(error) and self._has_arrived(shards):
                return _sha(self._api.repo_info(self._target.repo_id, revision=revision))
            raise
        return str(commit.oid)

    def _has_arrived(self, shards: Sequence[StagedShard]) -> bool:
        published = {file.path: file.lfs.sha256 for file in self._files(self._target.revision) if file.lfs is not None}
        return all(published.get(shard.filename) == shard.sha256 for shard in shards)

    def close(self) -> None:
        """Removes the temporary folder; the staging branch stays until a run has published."""
        self._temporary.cleanup()

    def _create_repo(self) -> None:
        try:
            self._api.repo_info(self._target.repo_id)
        except RepositoryNotFoundError:
            self._api.create_repo(self._target.repo_id, private=self._target.private, exist_ok=True)

    def _open_revision(self) -> str:
        """Returns the head of the target branch, which is made from main if it does not exist."""
        repo, revision = self._target.repo_id, self._target.revision
        try:
            return _sha(self._api.repo_info(repo, revision=revision))
        except RevisionNotFoundError:
            self._api.create_branch(repo, branch=revision)
            return _sha(self._api.repo_info(repo, revision=revision))

    def _open_branch(self) -> str:
        self._api.create_branch(self._target.repo_id, branch=self._branch, revision=self._head, exist_ok=True)
        return self._branch

    def _open_pull_request(self) -> str:
        """Returns the ref of the draft pull request that this plan staged to before, or of a new one."""
        repo = self._target.repo_id
        if self._target.revision != "main":
            raise PublishError("a pull request goes to main", hint="Leave out --revision or --create-pr.")
        for discussion in self._api.get_repo_discussions(repo, discussion_type="pull_request"):
            if discussion.status in ("draft", "open") and self._branch in discussion.title:
                return str(discussion.git_reference)
        title = f"{self._target.message} ({self._branch})"
        return str(self._api.create_pull_request(repo, title=title).git_reference)

    def _staged_shards(self) -> dict[str, StagedShard]:
        prefix = f"{self._staging_folder}/"
        return {
            (name := file.path.removeprefix(prefix)): StagedShard(name, file.size, file.lfs.sha256)
            for file in self._files(self._staging)
            if file.path.startswith(prefix) and file.lfs is not None
        }

    def _files(self, revision: str) -> Iterator[RepoFile]:
        for entry in self._api.list_repo_tree(self._target.repo_id, recursive=True, revision=revision):
            if isinstance(entry, RepoFile):
                yield entry

    def _copies(self, shards: Sequence[StagedShard]) -> list[CommitOperation]:
        folder = self._staging_folder
        return [
            CommitOperationCopy(f"{folder}/{shard.filename}", shard.filename, src_revision=self._staging)
            for shard in shards
        ]

    def _additions(self, files: Mapping[str, bytes]) -> list[CommitOperation]:
        return [CommitOperationAdd(path_in_repo=name, path_or_fileobj=files[name]) for name in sorted(files)]

    def _deletions(self, shards: Sequence[StagedShard]) -> list[CommitOperation]:
        """Returns the deletion of the weights that the merge replaces: a loader would mix them with the new ones."""
        new = {shard.filename for shard in shards} | ({INDEX_FILENAME} if len(shards) > 1 else set())
        old = (file.path for file in self._files(self._head) if "/" not in file.path)
        return [
            CommitOperationDelete(path) for path in sorted(old) if path.endswith(WEIGHT_SUFFIXES) and path not in new
        ]

    def _publish_pull_request(self, operations: list[CommitOperation]) -> Published:
        number = int(self._staging.rsplit("/", 1)[1])
        operations = [*operations, CommitOperationDelete(f"{self._staging_folder}/", is_folder=True)]
        commit = self._commit(operations, message=self._target.message, revision=self._staging)
        repo = self._target.repo_id
        self._api.rename_discussion(repo, discussion_num=number, new_title=self._target.message)
        self._api.change_discussion_status(repo, discussion_num=number, new_status="open")
        return Published(f"{self._page()}/discussions/{number}", commit.oid)

    def _commit(self, operations: list[Any], *, message: str, revision: str, parent_commit: str | None = None) -> Any:
        return self._api.create_commit(
            self._target.repo_id,
            operations=operations,
            commit_message=message,
            revision=revision,
            parent_commit=parent_commit,
        )

    def _page(self) -> str:
        return f"{self._api.endpoint}/{self._target.repo_id}"

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turns the Hub's refusals into sentences."""
        try:
            yield
        except HfHubHTTPError as error:
            raise self._refusal(error, action) from error
        except OSError as error:
            raise PublishError(
                f"could not {action} {self._target.repo_id}: {error}",
                hint="Run the same command again; it goes on from what has arrived.",
            ) from error

    def _refusal(self, error: HfHubHTTPError, action: str) -> PublishError:
        repo = self._target.repo_id
        status = getattr(error.response, "status_code", None)
        if status == 401:
            return PublishError(
                f"cannot {action} {repo}: no valid token", hint="Log in with a write token: hf auth login"
            )
        if status == 403:
            return PublishError(
                f"cannot {action} {repo}: the token may not write there",
                hint="Use a token with write access to it (--target-token or HF_TOKEN), or choose a repo of your own.",
            )
        if status == 412:
            return TargetMovedError(
                f"{repo} got another commit while the merge ran; nothing was published",
                hint="Run the same command again; the finished shards are taken up from the staging branch.",
            )
        return PublishError(
            f"could not {action} {repo}: the Hub answered {error.server_message or error}",
            hint="Run the same command again; it goes on from what has arrived.",
        )


def _is_server_error(error: HfHubHTTPError) -> bool:
    status = getattr(error.response, "status_code", None)
    return status is None or status >= 500


def _sha(info: Any) -> str:
    assert info.sha is not None
    return str(info.sha)
