"""Tags of published merges: a name that is free is asked for before the work, and given after it."""

from __future__ import annotations

from hubmerge.errors import PublishError
from hubmerge.publish.hub_repo import hub_api
from hubmerge.publish.refusals import FAILURES, explain
from hubmerge.weights.hub_client import HASTY, PATIENT, retried
from hubmerge.weights.reference import is_revision


def check_new_tag(repo_id: str, tag: str, *, token: str | None) -> None:
    """Raises PublishError if a repo has that tag, or if nothing can be called so."""
    if not is_revision(tag):
        raise PublishError(f"{tag!r} cannot be a tag", hint="Name another --tag.")
    try:
        refs = retried(lambda: hub_api(token).list_repo_refs(repo_id), policy=HASTY)
    except FAILURES as error:
        raise explain(error, repo_id, "read the tags of", token=token) from error
    if tag in [each.name for each in refs.tags]:
        raise PublishError(f"{repo_id} has a tag {tag} already", hint="Name another --tag.")


def create_tag(repo_id: str, tag: str, *, commit: str, token: str | None) -> None:
    """Tags a commit.

    Raises:
        PublishError: The Hub refuses; the commit stays as it is.
    """
    try:
        retried(lambda: hub_api(token).create_tag(repo_id, tag=tag, revision=commit), policy=PATIENT)
    except FAILURES as error:
        raise explain(error, repo_id, f"tag {commit[:7]} as {tag} in", token=token) from error
