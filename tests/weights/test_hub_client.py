"""The API calls of huggingface_hub, with the time limits and the retries that they lack."""

from __future__ import annotations

import time

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session

from hubmerge.localhub import LocalHub
from hubmerge.weights import hub_client
from hubmerge.weights.hub_client import HTTP_ERROR, RetryPolicy, retried

ONCE = RetryPolicy(attempts=1)
TWICE = RetryPolicy(attempts=2, first_wait_seconds=0.01)


WHOAMI = "GET /api/whoami-v2"


@pytest.fixture
def impatient(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """A Hub for whose answers we wait a moment only."""
    monkeypatch.setattr(hub_client, "LONGEST_SILENCE_SECONDS", 0.2)
    return hub


@pytest.fixture
def stalled(impatient: LocalHub) -> LocalHub:
    """One that does not answer whoami, once, for longer than anybody waits."""
    impatient.faults.add(match=WHOAMI, delay_seconds=3, count=1)
    return impatient


def test_a_call_that_is_not_answered_is_given_up(stalled: LocalHub) -> None:
    api = HfApi(token=stalled.token, library_name="hubmerge", library_version="0")
    started = time.monotonic()
    with pytest.raises(HTTP_ERROR):
        retried(api.whoami, policy=ONCE)
    assert time.monotonic() - started < 2


def test_and_tried_again(stalled: LocalHub) -> None:
    api = HfApi(token=stalled.token, library_name="hubmerge", library_version="0")
    assert retried(api.whoami, policy=TWICE)["name"] == "local"


def test_the_limit_is_for_our_own_calls(impatient: LocalHub) -> None:
    impatient.faults.add(match=WHOAMI, delay_seconds=0.6, count=1)
    assert retried(HfApi(token=impatient.token).whoami, policy=ONCE)["name"] == "local"


def test_the_limit_is_set_once(hub: LocalHub) -> None:
    for _ in range(3):
        retried(HfApi(token=hub.token).whoami, policy=ONCE)
    assert get_session().event_hooks["request"].count(hub_client._set_time_limit) == 1
