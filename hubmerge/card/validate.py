"""Asks the Hub whether it would take a card, before gigabytes are uploaded beside it."""

from __future__ import annotations

from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import get_session

from hubmerge.errors import CardError
from hubmerge.weights.hub_client import HTTP_ERROR

TIMEOUT_SECONDS = 30.0


def validate_card(card: str, *, endpoint: str | None = None) -> tuple[str, ...]:
    """Returns the Hub's warnings about a README.md; none if it cannot be asked, since the upload will tell.

    Args:
        card: The whole text.
        endpoint: The Hub to ask; HF_ENDPOINT if None.

    Raises:
        CardError: The Hub refuses the card.
    """
    answer = _ask(card, endpoint)
    if errors := _messages(answer, "errors"):
        raise CardError(f"the Hub refuses the model card: {'; '.join(errors)}")
    return _messages(answer, "warnings")


def _ask(card: str, endpoint: str | None) -> dict[str, Any]:
    """Returns the Hub's answer; an empty one offline, or from a server that does not check cards."""
    question = {"repoType": "model", "content": card}
    address = f"{endpoint or constants.ENDPOINT}/api/validate-yaml"
    try:
        response = get_session().post(address, json=question, timeout=TIMEOUT_SECONDS)
        answer = response.json() if response.status_code in (200, 400) else {}
    except (OfflineModeIsEnabled, HTTP_ERROR, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _messages(answer: dict[str, Any], kind: str) -> tuple[str, ...]:
    problems = answer.get(kind)
    found = problems if isinstance(problems, list) else []
    return tuple(str(problem.get("message")) for problem in found if isinstance(problem, dict))
