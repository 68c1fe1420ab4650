"""The Hub's refusals as sentences: what is wrong with which model, and what to do next."""

from __future__ import annotations

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hubmerge.errors import HubmergeError, SourceError, TransferError
from hubmerge.weights.hub_client import HTTP_ERROR, is_passing, no_hub_error, offline_error, reason_of

HUB_FAILURES: tuple[type[Exception], ...] = (HTTP_ERROR, OSError, ValueError, TypeError, KeyError)
"""What a call to the Hub's API raises when it does not answer the question.

The last three are what huggingface_hub makes of a name that it refuses, or of the answer of a proxy or another server.
"""

LOG_IN = "Run `hf auth login`."


def explain(error: Exception, repo_id: str, revision: str | None, *, token: str | bool | None) -> HubmergeError:
    """Returns the error to raise for what the Hub answered about a model.

    `token` is what the question was asked with; None is the stored token if there is one.
    """
    page = f"{constants.ENDPOINT}/{repo_id}"
    match error:
        case OfflineModeIsEnabled():
            return offline_error()
        case LocalTokenNotFoundError():
            return SourceError(f"{repo_id} needs a token and none is stored", hint=LOG_IN)
        case HFValidationError():
            return SourceError(f"{repo_id!r} is neither a folder nor a possible name of a model on the Hub")
        case GatedRepoError():
            return SourceError(
                f"{repo_id} is gated, and {_asker(token)} has not been let in", hint=f"Accept its terms at {page}."
            )
        case RepositoryNotFoundError():
            return _not_found(repo_id, token=token)
        case RevisionNotFoundError():
            return SourceError(f"{repo_id} has no revision {revision!r}", hint=f"Its revisions: {page}/tree/main")
        case DisabledRepoError():
            return SourceError(f"{repo_id} has been disabled by the Hub")
        case HfHubHTTPError():
            return _bad_status(error, repo_id)
        case ValueError() | TypeError() | KeyError():
            return no_hub_error(repo_id)
    return TransferError(
        f"{constants.ENDPOINT} does not answer for {repo_id}: {reason_of(error)}",
        hint="Check the connection and run the command again.",
    )


def _not_found(repo_id: str, *, token: str | bool | None) -> SourceError:
    if _has_token(token):
        return SourceError(
            f"there is no model {repo_id} on the Hub, or it is private and the token may not read it",
            hint="Check the name; run `hf auth whoami` to see which account is used.",
        )
    return SourceError(
        f"there is no model {repo_id} on the Hub, or it is private and no token was given",
        hint="Check the name; if it is private, run `hf auth login`.",
    )


def _bad_status(error: HfHubHTTPError, repo_id: str) -> HubmergeError:
    status = error.response.status_code
    if status == 401:
        return SourceError("the Hub does not accept the token", hint=f"{LOG_IN} HF_TOKEN, if set, goes before it.")
    if status == 403:
        return SourceError(f"the token may not read {repo_id}", hint="Give it read access to this repo.")
    if is_passing(status):
        return TransferError(f"the Hub answers HTTP {status} for {repo_id}", hint="Run the command again later.")
    return SourceError(f"the Hub answers HTTP {status} for {repo_id}: {error.server_message or 'no reason given'}")


def _asker(token: str | bool | None) -> str:
    return "this account" if _has_token(token) else "a reader without an account"


def _has_token(token: str | bool | None) -> bool:
    return token is not False and (isinstance(token, str) or get_token() is not None)
