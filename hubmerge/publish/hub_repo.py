"""One repo of the Hub as a publisher needs it: heads, files, branches, drafts and commits.

A method asks once and raises what huggingface_hub does. Those that make something take what is there already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from hubmerge.errors import PublishError
from hubmerge.version import __version__
from hubmerge.weights.checkpoint import DEFAULT_BRANCH

EXISTS = 409

CommitOperation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete


def hub_api(token: str | None) -> HfApi:
    """Returns the Hub's API, as this package; `token` is None for the one that the user logged in with."""
    return HfApi(token=token, library_name="hubmerge", library_version=__version__)


class HubRepo:
    """A repo that a token may write to.

    Args:
        repo_id: OWNER/NAME.
        token: None for the one that the user logged in with.
    """

    def __init__(self, repo_id: str, *, token: str | None) -> None:
        self.id = repo_id
        self.api = hub_api(token)

    def create(self, *, private: bool | None) -> None:
        """Makes the repo, with this visibility, if there is none; one that is there keeps its own."""
        try:
            self.api.repo_info(self.id)
        except RepositoryNotFoundError:
            self.api.create_repo(self.id, private=private, exist_ok=True)

    def open_branch(self, branch: str) -> str:
        """Returns the head of a branch, which is made from main if it does not exist."""
        refs = self.api.list_repo_refs(self.id)
        heads = {each.name: each.target_commit for each in refs.branches}
        if branch in heads:
            return str(heads[branch])
        if branch in [tag.name for tag in refs.tags]:
            raise PublishError(f"{branch} is a tag of {self.id}, not a branch", hint="Name another --revision.")
        self.api.create_branch(self.id, branch=branch)
        return self.head_of(branch)

    def open_staging_branch(self, branch: str, *, head: str) -> str:
        """Returns the branch, made at a commit; a token that may not write is refused even if it exists."""
        try:
            self.api.create_branch(self.id, branch=branch, revision=head)
        except HfHubHTTPError as error:
            if error.response.status_code != EXISTS:
                raise
        return branch

    def find_draft(self, mark: str) -> str | None:
        """Returns the ref of the own draft pull request whose title has a mark."""
        for pull in self.api.get_repo_discussions(self.id, discussion_type="pull_request"):
            # Anybody may write such a title; only a pull request of one's own holds one's own shards.
            if pull.status in ("draft", "open") and mark in pull.title and pull.author == self._account():
                return str(pull.git_reference)
        return None

    def open_draft(self, mark: str, *, title: str) -> str:
        """Returns the ref of the own draft pull request whose title has a mark, or of a new one."""
        draft = self.find_draft(mark)
        return draft or str(self.api.create_pull_request(self.id, title=f"{title} ({mark})").git_reference)

    def release_draft(self, ref: str, *, title: str) -> None:
        """Gives a pull request its final title and opens it."""
        number = _number(ref)
        self.api.rename_discussion(self.id, discussion_num=number, new_title=title)
        self.api.change_discussion_status(self.id, discussion_num=number, new_status="open")

    def delete_branch(self, branch: str) -> None:
        """Deletes a branch."""
        self.api.delete_branch(self.id, branch=branch)

    def head_of(self, revision: str) -> str:
        """Returns the commit that a branch or ref is at."""
        return str(self.api.repo_info(self.id, revision=revision).sha)

    def title_of(self, revision: str) -> str:
        """Returns the title of the latest commit."""
        return str(self.api.list_repo_commits(self.id, revision=revision)[0].title)

    def files(self, revision: str) -> Iterator[RepoFile]:
        """Returns every file."""
        for entry in self.api.list_repo_tree(self.id, recursive=True, revision=revision):
            if isinstance(entry, RepoFile):
                yield entry

    def sha256s(self, revision: str) -> dict[str, str]:
        """Returns the SHA-256 of every large file, by path."""
        return {file.path: file.lfs.sha256 for file in self.files(revision) if file.lfs is not None}

    def read(self, path: str, *, revision: str) -> bytes | None:
        """Returns a small file, None if there is none."""
        try:
            return Path(self.api.hf_hub_download(self.id, path, revision=revision)).read_bytes()
        except RemoteEntryNotFoundError:
            return None

    def commit(
        self, operations: Sequence[CommitOperation], *, message: str, revision: str, parent: str | None = None
    ) -> str:
        """Returns the commit that does all of this at once; with a parent, only if the branch is still at that."""
        commit = self.api.create_commit(
            self.id, operations=operations, commit_message=message, revision=revision, parent_commit=parent
        )
        return str(commit.oid)

    def page(self, revision: str) -> str:
        """Returns the address of a branch, or of a pull request by its ref, for people."""
        address = f"{self.api.endpoint}/{self.id}"
        if revision.startswith("refs/pr/"):
            return f"{address}/discussions/{_number(revision)}"
        return address if revision == DEFAULT_BRANCH else f"{address}/tree/{quote(revision, safe='')}"

    def _account(self) -> str:
        return str(self.api.whoami()["name"])


def _number(ref: str) -> int:
    return int(ref.rsplit("/", 1)[1])
