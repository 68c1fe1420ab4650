"""A few small files committed to a repo that is there, or proposed to it: all of them or none, and tried once.

Another try after a lost answer would propose the same twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd
from huggingface_hub.hf_api import CommitInfo

from hubmerge.errors import PublishError, TargetMovedError
from hubmerge.publish.hub_repo import hub_api
from hubmerge.publish.publisher import Published
from hubmerge.publish.refusals import FAILURES, explain
from hubmerge.weights.hub_client import check_token


@dataclass(frozen=True, kw_only=True)
class SmallCommit:
    """Where small files go.

    Attributes:
        revision: The branch; None for the default one.
        parent: The commit, 40 hexadecimal digits, that the branch must still be at.
        create_pr: Open a pull request instead.
    """

    repo_id: str
    revision: str | None
    parent: str
    message: str
    create_pr: bool = False


def commit_small_files(target: SmallCommit, files: Mapping[str, bytes], *, token: str | None) -> Published:
    """Commits files by their paths.

    Args:
        target: Where to.
        files: At least one.
        token: A token that may write; None for the one that the user logged in with.

    Raises:
        TargetMovedError: The branch has got another commit.
        PublishError: The repo cannot be written.
    """
    check_token(token, PublishError)
    try:
        commit = _commit(target, files, token=token)
    except FAILURES as error:
        explained = explain(error, target.repo_id, "write to", token=token)
        if isinstance(explained, TargetMovedError):
            raise TargetMovedError(
                f"{target.repo_id} got another commit since it was read; nothing was changed",
                hint="Run the same command again.",
            ) from error
        raise explained from error
    page = commit.pr_url if target.create_pr else str(commit.repo_url)
    return Published(str(page), str(commit.oid))


def _commit(target: SmallCommit, files: Mapping[str, bytes], *, token: str | None) -> CommitInfo:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of the card, which the Hub has seen
        return hub_api(token).create_commit(
            target.repo_id,
            operations=[CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=target.message,
            revision=target.revision,
            parent_commit=target.parent,
            create_pr=target.create_pr,
        )
