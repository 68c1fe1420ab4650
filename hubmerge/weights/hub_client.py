"""The Hub's HTTP session as plain bytes need it: which failures pass, how long to wait, what never to retry.

huggingface_hub speaks through httpx before version 2 and through httpx2 since; nothing here names either.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from huggingface_hub import get_token
from huggingface_hub.constants import ENDPOINT, HF_HUB_DOWNLOAD_TIMEOUT
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import get_session, parse_ratelimit_headers

from hubmerge.errors import HubmergeError, TransferError

Answer = TypeVar("Answer")

HTTP_ERROR: type[Exception] = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
"""What the session raises when a request or its body fails."""

PASSING_STATUSES = frozenset({408, 425, 429})
"""Answers of the 400s that another try may mend; all of the 500s may."""

SENDABLE_TOKEN = re.compile(r"[!-~]+")
"""What an HTTP header can carry; a token that is copied with a line break or a typographic sign is not."""

LONGEST_ASKED_WAIT_SECONDS = 330.0
"""The Hub counts requests in windows of 300 seconds: https://huggingface.co/docs/hub/rate-limits."""


LONGEST_SILENCE_SECONDS = 120.0
"""Of an API call; the Hub gives up on its own side after 60."""


class PassingError(Exception):
    """A request failed in a way that another try may mend.

    Attributes:
        wait_seconds: How long the server asks to wait; None if it does not say.
    """

    def __init__(self, reason: str, *, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class RetryPolicy:
    """How patient a request is.

    Attributes:
        attempts: Tries in a row without progress before giving up: about two minutes with the default waits.
        first_wait_seconds: Longest wait after the first failure; it doubles with each one.
        timeout_seconds: Longest silence on a connection.
    """

    attempts: int = 9
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 30.0
    timeout_seconds: float = float(HF_HUB_DOWNLOAD_TIMEOUT)

    def wait_seconds(self, failures: int, error: PassingError) -> float:
        """Returns the wait after that many failures: what the server asked for, else a random part of the back-off."""
        if error.wait_seconds is not None:
            return min(error.wait_seconds, LONGEST_ASKED_WAIT_SECONDS)
        longest: float = min(self.longest_wait_seconds, self.first_wait_seconds * 2 ** (failures - 1))
        return random.uniform(longest / 2, longest)


PATIENT = RetryPolicy()
"""For a merge that has run for hours."""

HASTY = RetryPolicy(attempts=4)
"""For the first questions, where somebody waits for the answer."""


def retried(
    ask: Callable[[], Answer],
    *,
    policy: RetryPolicy,
    passing: Collection[int] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Returns the answer to a question that huggingface_hub asks once; its own error if it keeps failing.

    Args:
        ask: May be called several times.
        policy: How patiently.
        passing: Statuses that another try may mend here, beside those that it always may.
        sleep: Waits.
    """
    failures = 0
    while True:
        _limit_silence()
        try:
            return ask()
        except (HTTP_ERROR, RuntimeError) as error:
            failures += 1
            unwrapped = _cause_of(error)
            cause = _passing_error_of(unwrapped, passing)
            if cause is None or failures >= policy.attempts:
                raise unwrapped from None
            sleep(policy.wait_seconds(failures, cause))


@contextmanager
def open_stream(url: str, headers: Mapping[str, str], *, timeout_seconds: float) -> Iterator[Any]:
    """Yields the response to a GET, redirects included, with its body unread.

    Raises:
        PassingError: The connection failed, then or while the body was read.
        TransferError: HF_HUB_OFFLINE is set.
    """
    session = get_session()
    if session is None:  # huggingface_hub gives none while another thread closes it
        raise PassingError("the connection was closed")
    try:
        with session.stream(
            "GET", url, headers=dict(headers), timeout=timeout_seconds, follow_redirects=False
        ) as response:
            yield response
    except OfflineModeIsEnabled:
        raise offline_error() from None
    except (HTTP_ERROR, OSError) as error:
        raise PassingError(reason_of(error)) from error
    except RuntimeError as error:
        if not session.is_closed:
            raise
        # huggingface_hub closes the session that all threads share when a connection of any of them fails.
        raise PassingError("the connection was closed") from error


def check_passing_status(response: Any) -> None:
    """Raises PassingError if the answer says to come back later."""
    status = response.status_code
    if is_passing(status):
        raise PassingError(f"HTTP {status}", wait_seconds=asked_wait_seconds(response.headers))


def is_passing(status: int) -> bool:
    """Returns whether another try may get another answer."""
    return status in PASSING_STATUSES or status >= 500


def asked_wait_seconds(headers: Mapping[str, str]) -> float | None:
    """Returns how long `RateLimit` or `Retry-After` asks to wait, None if neither does."""
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1.0  # it is rounded down
    return _retry_after_seconds(headers.get("retry-after", "").strip())


def check_token(token: str | bool | None, error: type[HubmergeError]) -> None:
    """Raises the error for a token that cannot be sent, without quoting it, as the HTTP client's own error would.

    `token` is as huggingface_hub takes it: None is the stored token if there is one, False is none.
    """
    sent = token if isinstance(token, str) else None if token is False else get_token()
    if sent is not None and not SENDABLE_TOKEN.fullmatch(sent):
        raise error(
            "the token is empty or has characters that no token has, such as a space or a line break",
            hint="Copy it anew from https://huggingface.co/settings/tokens.",
        )


def offline_error() -> TransferError:
    """Returns the error for HF_HUB_OFFLINE."""
    return TransferError(
        "the Hub cannot be asked because offline mode is on", hint="Unset HF_HUB_OFFLINE, or name local folders."
    )


def no_hub_error(repo_id: str) -> TransferError:
    """Returns the error for an answer about a repo that no Hub gives, such as a page of HTML."""
    return TransferError(
        f"{ENDPOINT} does not answer for {repo_id} as a Hub does",
        hint="Check HF_ENDPOINT, and whether a proxy or a login page answers in its place; then run the command again.",
    )


def reason_of(error: Exception) -> str:
    """Returns why a request failed, in a few words on one line."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _limit_silence() -> None:
    """Lets no API call of ours wait for ever, as huggingface_hub's do: its session has no time limit.

    The session is replaced when a connection fails, so this is repeated before each attempt.
    """
    hooks: list[Callable[[Any], None]] = get_session().event_hooks["request"]
    if _set_time_limit not in hooks:
        hooks.append(_set_time_limit)


def _set_time_limit(request: Any) -> None:
    """Sets a limit for a request of this package that has none; other users of the session keep theirs."""
    if "hubmerge/" in request.headers.get("user-agent", ""):
        limits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            phase: LONGEST_SILENCE_SECONDS if seconds is None else seconds for phase, seconds in limits.items()
        }


def _cause_of(error: Exception) -> Exception:
    """Returns the HTTP error in a RuntimeError, in which huggingface_hub wraps those of uploads, if there is one."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, HTTP_ERROR) else error


def _passing_error_of(error: Exception, also: Collection[int]) -> PassingError | None:
    if not isinstance(error, HfHubHTTPError) or error.response.status_code in also:
        return PassingError(reason_of(error))
    try:
        check_passing_status(error.response)
    except PassingError as passing:
        return passing
    return None


def _retry_after_seconds(value: str) -> float | None:
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
