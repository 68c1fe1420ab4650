"""The Hub's refusals to be written to, as sentences: what is wrong with the target, and what to do next."""

from __future__ import annotations

from json import JSONDecodeError

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from hubmerge.errors import HubmergeError, PublishError, TargetMovedError
from hubmerge.weights.hub_client import HTTP_ERROR, no_hub_error, offline_error, reason_of

FAILURES: tuple[type[Exception], ...] = (HTTP_ERROR, OSError, ValueError, RuntimeError, EntryNotFoundError)
"""What a call that writes to the Hub raises when it fails.

ValueError is for a name or a card that it refuses, RuntimeError for an upload that did not arrive.
"""

REFUSALS = frozenset({400, 405, 413, 422})
"""Answers that another run would get again; 404 is not one, since it would make a staging branch that vanished anew."""

GO_ON = "Run the same command again; it goes on from what has arrived."


def explain(error: Exception, repo_id: str, action: str, *, token: str | None, was_open: bool = False) -> HubmergeError:
    """Returns the error to raise for what the Hub answered.

    Args:
        error: One of FAILURES.
        repo_id: The target.
        action: What was tried, such as "upload a.safetensors to".
        token: What the question was asked with; None for the stored one, if there is one.
        was_open: Whether the repo was there and could be written a while ago.
    """
    match error:
        case OfflineModeIsEnabled():
            return offline_error()
        case HFValidationError():
            return PublishError(f"{repo_id!r} is not a possible name of a repo on the Hub", hint="Name it OWNER/NAME.")
        case RepositoryNotFoundError() if was_open:
            return PublishError(
                f"{repo_id} is gone: it was deleted or renamed while the merge ran, or the token lost its access",
                hint="Run the same command again to make it anew, or name the repo as it is called now.",
            )
        case RepositoryNotFoundError():
            return no_write_access(repo_id, error)
        case HfHubHTTPError():
            return _explain_status(error, repo_id, action, token=token)
        case JSONDecodeError():
            return no_hub_error(repo_id)
    return PublishError(f"could not {action} {repo_id}: {reason_of(error)}", hint=GO_ON)


def moved_error(repo_id: str) -> TargetMovedError:
    """Returns the error for a target that somebody else changed meanwhile."""
    return TargetMovedError(
        f"{repo_id} got another commit while the merge ran; nothing was published",
        hint="Run the same command again; it takes up the shards that are finished.",
    )


def overtaken(repo_id: str, page: str) -> PublishError:
    """Returns the error for a merge that another run has published, whose page is given."""
    return PublishError(
        f"another run of the same merge has published it to {repo_id} while this one ran",
        hint=f"Nothing is left to do: {page}",
    )


def no_write_access(repo_id: str, error: HfHubHTTPError) -> PublishError:
    """Returns the error for a token that may not write; in the Hub's own words, which may name a quota instead."""
    return PublishError(
        f"the token may not write to {repo_id}{_said(error)}",
        hint="Use a token with write access to it (--target-token, or HF_TOKEN), or choose a repo of your own.",
    )


def _explain_status(error: HfHubHTTPError, repo_id: str, action: str, *, token: str | None) -> PublishError:
    status = error.response.status_code
    if status == 401:
        return _not_logged_in(repo_id, token=token)
    if status == 403:
        return no_write_access(repo_id, error)
    if status == 412:
        return moved_error(repo_id)
    hint = None if status in REFUSALS else GO_ON
    return PublishError(f"could not {action} {repo_id}: the Hub answers HTTP {status}{_said(error)}", hint=hint)


def _not_logged_in(repo_id: str, *, token: str | None) -> PublishError:
    if token is None and get_token() is None:
        return PublishError(f"writing to {repo_id} needs a token and none is stored", hint="Run `hf auth login`.")
    return PublishError(
        f"{constants.ENDPOINT} does not accept the token for {repo_id}",
        hint="Run `hf auth login`. --target-token and HF_TOKEN, if set, go before it.",
    )


def _said(error: HfHubHTTPError) -> str:
    words = " ".join((error.server_message or "").split())
    return f"; the Hub says: {words}" if words else ""
