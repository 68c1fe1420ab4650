"""The answers that say no, with the headers by which Hub clients tell them apart.

Over plain http the clients go by `X-Error-Code` alone, so every refusal that has one carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Refusal(Exception):
    """A request that gets a status of 400 or more.

    Attributes:
        status: HTTP status code.
        message: Sent as `error` in the JSON body and as `X-Error-Message`.
        code: `X-Error-Code`, where the Hub has one for this case.
        headers: Further headers.
        extra: Further keys of the JSON body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


def bad_request(message: str) -> Refusal:
    """400: the request itself is wrong."""
    return Refusal(400, message)


def invalid_credentials() -> Refusal:
    """401 for a token that this Hub never issued; clients match the exact message."""
    return Refusal(401, "Invalid credentials in Authorization header")


def login_required() -> Refusal:
    """401 for an anonymous request to something that needs a user."""
    return Refusal(401, "Invalid username or password.")


def forbidden(message: str) -> Refusal:
    """403: known user, insufficient rights."""
    return Refusal(403, message)


def repo_not_found(*, anonymous: bool) -> Refusal:
    """The same answer for a repo that is missing and for one that the caller may not know of."""
    status = 401 if anonymous else 404
    return Refusal(status, "Repository not found", code="RepoNotFound")


def gated(repo_type: str, repo_id: str, *, anonymous: bool) -> Refusal:
    """401 or 403 for the files of a gated repo that this user has no access to."""
    message = f"Access to {repo_type} {repo_id} is restricted and you are not in the authorized list."
    return Refusal(401 if anonymous else 403, message, code="GatedRepo")


def revision_not_found(revision: str) -> Refusal:
    """404 for a branch, tag or commit that the repo does not have."""
    return Refusal(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found(path: str, *, commit: str | None = None) -> Refusal:
    """404 for a missing file; with `commit` the client can cache the miss."""
    headers = {} if commit is None else {"X-Repo-Commit": commit}
    return Refusal(404, f"{path} does not exist", code="EntryNotFound", headers=headers)


def conflict(message: str, **extra: Any) -> Refusal:
    """409: it exists already, or it collides with what exists."""
    return Refusal(409, message, extra=extra)
