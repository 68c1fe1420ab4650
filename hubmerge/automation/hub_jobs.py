"""huggingface_hub's calls for jobs, with the Hub's refusals as sentences."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import huggingface_hub
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.errors import AutomationError, HubmergeError, TransferError
from hubmerge.version import __version__
from hubmerge.weights.hub_client import HTTP_ERROR, check_token, is_passing, reason_of

PACKAGE = f"hubmerge=={__version__}"
"""What a job installs: the version that was asked to start it."""

DEFAULT_FLAVOR = "cpu-upgrade"
"""8 cores and 32 GB; merges need no GPU: https://huggingface.co/docs/hub/jobs-pricing."""

TIMEOUT = "6h"
"""Of a job; the Hub's own default, 30 minutes, is too short for a 70B merge."""


def job_secrets(others: Mapping[str, str | None]) -> dict[str, str]:
    """Returns what a job is given in secret: HF_TOKEN, and those of the others that have a value.

    Raises:
        AutomationError: No token is stored, or it cannot be sent.
    """
    token = get_token()
    if token is None:
        raise AutomationError("a job on the Hub needs a token and none is stored", hint="Run `hf auth login`.")
    check_token(token, AutomationError)
    return {"HF_TOKEN": token, **{name: value for name, value in others.items() if value}}


def check_webhooks() -> None:
    """Raises AutomationError if a webhook could not hand its job the token: huggingface_hub 1.x does not send any."""
    if "secrets" not in inspect.signature(HfApi.create_webhook).parameters:
        raise AutomationError(
            f"huggingface_hub {huggingface_hub.__version__} gives the jobs of webhooks no token",
            hint="pip install --upgrade huggingface_hub, or look at set times with --schedule @daily.",
        )


@contextmanager
def jobs_api() -> Iterator[HfApi]:
    """Gives the Hub's API; its refusals become errors of hubmerge.

    Raises:
        AutomationError: The Hub refuses.
        TransferError: It does not answer.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental", category=UserWarning)
        try:
            yield HfApi(library_name="hubmerge", library_version=__version__)
        except HTTP_ERROR as error:
            raise _explained(error) from error


def _explained(error: Exception) -> HubmergeError:
    if not isinstance(error, HfHubHTTPError):
        return TransferError(f"the Hub does not answer: {reason_of(error)}", hint="Run the command again later.")
    status = error.response.status_code
    if is_passing(status):
        return TransferError(f"the Hub answers HTTP {status}", hint="Run the command again later.")
    said = error.server_message or "no reason given"
    if status in (401, 402, 403):
        hint = "Jobs need a token that may write, and prepaid credit: https://huggingface.co/docs/hub/jobs"
        return AutomationError(f"the Hub refuses the job: {said}", hint=hint)
    return AutomationError(f"the Hub answers HTTP {status}: {said}")
