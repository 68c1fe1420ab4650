"""Whether a parent's commit is its owner's: anybody can put commits into a repo by opening a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from huggingface_hub import HfApi

from hubmerge.merge.plan import Parent
from hubmerge.version import __version__
from hubmerge.weights.checkpoint import DEFAULT_BRANCH
from hubmerge.weights.hub_client import HASTY, retried
from hubmerge.weights.hub_errors import HUB_FAILURES


def strange_commits(parents: Sequence[Parent], *, token: str | bool | None) -> Iterator[str]:
    """Yields a sentence for each parent whose commit is not in the history of its main branch or of the recipe's."""
    for parent in parents:
        if parent.sha is None:
            continue
        branches = dict.fromkeys((DEFAULT_BRANCH, _branch(parent)))
        known = {sha for branch in branches for sha in _history(parent.ref.path, branch, token=token)}
        if parent.sha not in known:
            yield (
                f"{parent.sha[:12]} is a commit of the owner of {parent.ref.path}, although no branch of theirs that "
                "was asked for has it: a pull request of anybody's may."
            )


def _branch(parent: Parent) -> str:
    """Returns the branch or tag that the recipe names; a commit or a pull request says nothing about who made it."""
    stated = parent.ref.revision
    is_anybodys = stated is None or stated.startswith("refs/") or (parent.sha or "").startswith(stated)
    return DEFAULT_BRANCH if stated is None or is_anybodys else stated


def _history(repo_id: str, branch: str, *, token: str | bool | None) -> list[str]:
    api = HfApi(token=token, library_name="hubmerge", library_version=__version__)
    try:
        commits = retried(lambda: api.list_repo_commits(repo_id, revision=branch), policy=HASTY)
    except HUB_FAILURES:  # what cannot be asked is an assumption like any other
        return []
    return [commit.commit_id for commit in commits]
