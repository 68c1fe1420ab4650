"""What goes wrong on demand, and how clients take it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session, http_backoff

from hubmerge.localhub import LocalHub
from hubmerge.localhub.refusals import Refusal
from tests.localhub.conftest import send

DATA = b"0123456789" * 100


@pytest.fixture(scope="module")
def path(api: HfApi) -> str:
    api.create_repo("ann/faulty")
    api.upload_file(path_or_fileobj=DATA, path_in_repo="data.txt", repo_id="ann/faulty")
    return "/ann/faulty/resolve/main/data.txt"


def test_a_status_is_answered_so_many_times(hub: LocalHub, path: str) -> None:
    hub.faults.add("GET .*data.txt", status=503, headers={"Retry-After": "1"}, body="later", skip=1, count=2)
    answers = [send(hub, "GET", path) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 503, 503, 200]
    assert (answers[1].headers["Retry-After"], answers[1].body) == ("1", b"later")


def test_clients_wait_as_told_when_they_asked_too_often(hub: LocalHub, path: str) -> None:
    hub.faults.add("data.txt", status=429, headers={"Retry-After": "1"}, count=1)
    began = time.monotonic()
    assert http_backoff("GET", f"{hub.endpoint}{path}", base_wait_time=0, retry_on_status_codes=429).content == DATA
    assert time.monotonic() - began >= 1


def test_a_dropped_connection_ends_the_body_early(hub: LocalHub, path: str) -> None:
    hub.faults.add("data.txt", drop_after_bytes=7)
    hub.requests.clear()
    url, read = f"{hub.endpoint}{path}", b""
    with pytest.raises(Exception, match="peer closed connection"), get_session().stream("GET", url) as response:  # noqa: PT012
        for block in response.iter_raw():
            read += block
    assert read == DATA[:7]
    assert [record.sent_bytes for record in hub.requests] == [7]


def test_a_client_asks_again_when_the_connection_dropped(hub: LocalHub, path: str, tmp_path: Path) -> None:
    hub.faults.add("GET .*data.txt", drop_after_bytes=600, count=1)
    hub.requests.clear()
    assert Path(hf_hub_download("ann/faulty", "data.txt", cache_dir=tmp_path)).read_bytes() == DATA
    assert [record.sent_bytes for record in hub.requests if record.method == "GET"] == [600, len(DATA)]


def test_a_stalled_answer_keeps_the_connection_open(hub: LocalHub, path: str) -> None:
    hub.faults.add("data.txt", stall_after_bytes=5)
    with pytest.raises(Exception, match="timed out"):
        get_session().get(f"{hub.endpoint}{path}", timeout=0.3)


def test_wrong_bytes_arrive_in_full_length(hub: LocalHub, path: str) -> None:
    hub.faults.add("data.txt", wrong_bytes=2)
    body = send(hub, "GET", path).body
    assert body == bytes([DATA[0] ^ 0xFF, DATA[1] ^ 0xFF]) + DATA[2:]


def test_a_range_can_be_ignored(hub: LocalHub, path: str) -> None:
    hub.faults.add("data.txt", ignore_range=True)
    answer = send(hub, "GET", path, Range="bytes=0-3")
    assert (answer.status, answer.body) == (200, DATA)


def test_a_commit_may_succeed_and_time_out_all_the_same(hub: LocalHub, api: HfApi, repo: str) -> None:
    hub.faults.add("POST .*/commit/", status=504, apply_first=True, count=1)
    with pytest.raises(HfHubHTTPError, match="504"):
        api.create_commit(repo, [CommitOperationAdd("a", b"1")], commit_message="late")
    assert api.list_repo_commits(repo)[0].title == "late"


def test_an_answer_can_be_delayed(hub: LocalHub, path: str) -> None:
    hub.faults.add("data.txt", delay_seconds=0.2, count=1)
    began = time.monotonic()
    assert send(hub, "GET", path).status == 200
    assert time.monotonic() - began >= 0.2


def test_a_fault_with_an_unknown_field_is_refused(hub: LocalHub) -> None:
    with pytest.raises(Refusal, match="A fault has no field statos"):
        hub.faults.add("x", statos=500)


def test_faults_are_set_over_http_too(hub: LocalHub, path: str) -> None:
    body = json.dumps({"match": "data.txt", "status": 500, "count": 1}).encode()
    assert send(hub, "POST", "/_localhub/faults", body=body).status == 201
    assert send(hub, "GET", path).status == 500
    (listed,) = json.loads(send(hub, "GET", "/_localhub/faults").body)
    assert (listed["match"], listed["status"], listed["seen"]) == ("data.txt", 500, 1)
    send(hub, "DELETE", "/_localhub/faults")
    assert json.loads(send(hub, "GET", "/_localhub/faults").body) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "A fault needs `match`, a regular expression"),
        (b'{"match": "("}', "`match` is not a regular expression: missing ), unterminated subpattern at position 0"),
        (b"[]", "The body is not a JSON object"),
        (b"{", "The body is not JSON"),
    ],
)
def test_bad_faults_are_refused(hub: LocalHub, body: bytes, message: str) -> None:
    answer = send(hub, "POST", "/_localhub/faults", body=body)
    assert (answer.status, json.loads(answer.body)["error"]) == (400, message)


def test_the_log_is_read_and_cleared_over_http(hub: LocalHub, path: str) -> None:
    send(hub, "DELETE", "/_localhub/requests")
    send(hub, "GET", f"{path}?x=1", Range="bytes=0-1")
    (record,) = json.loads(send(hub, "GET", "/_localhub/requests").body)
    assert record == {
        "method": "GET",
        "path": path,
        "query": "x=1",
        "status": 206,
        "sent_bytes": 2,
        "range": "bytes=0-1",
        "ref": "main",
        "token_name": None,
    }
