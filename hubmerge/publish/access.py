"""Whether a repo can be written to, asked before hours of work."""

from __future__ import annotations

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from hubmerge.publish.hub_repo import hub_api
from hubmerge.publish.refusals import FAILURES, explain
from hubmerge.weights.hub_client import HASTY, retried


def prepare_repo(
    repo_id: str, *, private: bool | None = None, create_pr: bool = False, token: str | None = None
) -> None:
    """Creates a repo if it does not exist, as its publication would, or makes sure that the token may write to it.

    A pull request may be opened by anybody.

    Raises:
        PublishError: It may not, or there can be no such repo.
    """
    api = hub_api(token)
    try:
        retried(lambda: _prepare(api, repo_id, private=private, create_pr=create_pr), policy=HASTY)
    except FAILURES as error:
        raise explain(error, repo_id, "open", token=token) from error


def _prepare(api: HfApi, repo_id: str, *, private: bool | None, create_pr: bool) -> None:
    try:
        api.repo_info(repo_id)
    except RepositoryNotFoundError:
        api.create_repo(repo_id, private=private, exist_ok=True)
        return
    if not create_pr:
        api.auth_check(repo_id, write=True)
