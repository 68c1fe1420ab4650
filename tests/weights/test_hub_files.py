"""HubFiles against a server that breaks the protocol in every way that a network or a proxy can."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import huggingface_hub
import pytest

from hubmerge.errors import SourceError, TransferError
from hubmerge.weights import hub_files
from hubmerge.weights.files import FileEntry
from hubmerge.weights.hub_client import RetryPolicy
from hubmerge.weights.hub_files import HubFiles
from tests.weights.range_server import (
    REPO,
    SHA,
    Answer,
    RangeServer,
    cut_after,
    failing,
    ignoring_range,
    stalled_after,
    stating,
)

SHARD = "model.safetensors"
CONTENT = random.Random(1).randbytes(300_000)
SMALL = b'{"a": 1}'


@pytest.fixture
def server() -> Iterator[RangeServer]:
    server = RangeServer({SHARD: CONTENT, "config.json": SMALL}, large={SHARD})
    yield server
    server.close()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def files(server: RangeServer, waits: list[float]) -> HubFiles:
    return open_files(server, waits)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def open_files(server: RangeServer, waits: list[float], *, sha256: str | None = None, attempts: int = 3) -> HubFiles:
    return HubFiles(
        REPO,
        SHA,
        entries=[FileEntry("config.json", len(SMALL)), FileEntry(SHARD, len(CONTENT), sha256=sha256)],
        token="hf_secret",
        endpoint=server.endpoint,
        retry=RetryPolicy(attempts=attempts, timeout_seconds=0.3),
        sleep=waits.append,
    )


def test_a_range_is_what_was_asked_for(files: HubFiles) -> None:
    assert files.read(SHARD, 1_000, 5_000) == CONTENT[1_000:5_000]


def test_the_label_has_the_short_commit(files: HubFiles) -> None:
    assert files.label == "org/name@0123456"


def test_the_store_is_asked_directly_once_its_signed_url_is_known(files: HubFiles, server: RangeServer) -> None:
    for start in range(0, 5_000, 1_000):
        files.read(SHARD, start, start + 1_000)
    assert len(server.hub_requests) == 1
    assert len(server.store_requests) == 5


def test_the_token_goes_to_the_hub_and_never_to_the_store(files: HubFiles, server: RangeServer) -> None:
    files.read(SHARD, 0, 10)
    files.read(SHARD, 10, 20)
    assert [request.headers["Authorization"] for request in server.hub_requests] == ["Bearer hf_secret"]
    assert [request.headers["Authorization"] for request in server.store_requests] == [None, None]


def test_nothing_is_asked_in_compressed_form(files: HubFiles, server: RangeServer) -> None:
    files.read(SHARD, 0, 10)
    assert {request.headers["Accept-Encoding"] for request in server.seen} == {"identity"}


def test_an_expired_url_is_signed_anew(files: HubFiles, server: RangeServer, waits: list[float]) -> None:
    files.read(SHARD, 0, 10)
    server.expired.add(1)
    assert files.read(SHARD, 10, 20) == CONTENT[10:20]
    assert [request.path for request in server.store_requests][-1] == f"/store/{SHARD}?signature=2"
    assert waits == []


def test_an_empty_range_asks_nothing(files: HubFiles, server: RangeServer) -> None:
    assert files.read(SHARD, 7, 7) == b""
    assert server.seen == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(
    files: HubFiles, server: RangeServer, waits: list[float], status: int
) -> None:
    server.faults.append(failing(status))
    assert files.read(SHARD, 0, 10) == CONTENT[:10]
    assert len(waits) == 1
    assert 0.25 <= waits[0] <= 0.5


def test_waits_double_and_are_scattered(server: RangeServer, waits: list[float]) -> None:
    server.faults.extend([failing(503)] * 5)
    open_files(server, waits, attempts=6).read(SHARD, 0, 10)
    for failures, wait in enumerate(waits):
        assert 0.25 * 2**failures <= wait <= 0.5 * 2**failures
    assert len(waits) == 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"RateLimit": '"resolvers";r=0;t=55'}, 56.0),
        ({"RateLimit": '"resolvers";r=3;t=55', "Retry_After": "9"}, 9.0),
        ({"Retry_After": "86400"}, 330.0),
    ],
)
def test_the_server_says_how_long_to_wait(files: HubFiles, server: RangeServer, waits, headers, seconds: float) -> None:
    server.faults.append(failing(429, **headers))
    files.read(SHARD, 0, 10)
    assert waits == [seconds]


def test_the_server_may_say_so_with_a_date(files: HubFiles, server: RangeServer, waits: list[float]) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=60)
    server.faults.append(failing(503, Retry_After=format_datetime(moment, usegmt=True)))
    files.read(SHARD, 0, 10)
    assert 55 < waits[0] <= 60


def test_a_cut_body_goes_on_where_it_ended(files: HubFiles, server: RangeServer) -> None:
    server.faults.append(cut_after(100_000))
    assert files.read(SHARD, 0, 300_000) == CONTENT
    first, second = server.store_requests
    assert first.headers["Range"] == "bytes=0-299999"
    assert second.headers["Range"] == "bytes=100000-299999"


def test_a_stalled_body_goes_on_where_it_stopped(files: HubFiles, server: RangeServer) -> None:
    server.faults.append(stalled_after(100_000, seconds=5))
    assert files.read(SHARD, 0, 300_000) == CONTENT
    assert server.store_requests[-1].headers["Range"] == "bytes=100000-299999"


def test_progress_makes_up_for_failures(server: RangeServer, waits: list[float], monkeypatch) -> None:
    monkeypatch.setattr(hub_files, "PROGRESS_BYTES", 50_000)
    server.faults.extend([cut_after(50_000)] * 5)
    assert open_files(server, waits, attempts=2).read(SHARD, 0, 300_000) == CONTENT
    assert all(wait <= 0.5 for wait in waits)


def test_it_gives_up_with_one_sentence_that_says_what_is_missing(files: HubFiles, server: RangeServer) -> None:
    server.faults.extend([cut_after(1_000), failing(503), failing(502)])
    with pytest.raises(TransferError) as caught:
        files.read(SHARD, 10_000, 20_000)
    assert str(caught.value) == (
        "org/name@0123456/model.safetensors: bytes 11,000 to 20,000 did not arrive in 3 attempts; "
        "the last one: HTTP 502"
    )
    assert caught.value.hint == "Check the connection and run the command again."


def test_a_server_that_is_gone_is_one_sentence(waits: list[float]) -> None:
    server = RangeServer({SHARD: CONTENT})
    server.close()
    with pytest.raises(TransferError) as caught:
        open_files(server, waits).read(SHARD, 0, 10)
    assert str(caught.value) == (
        "org/name@0123456/model.safetensors: bytes 0 to 10 did not arrive in 3 attempts; "
        "the last one: ConnectError: [Errno 111] Connection refused"
    )


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (ignoring_range(CONTENT), "the server ignored the range"),
        (failing(416), "the answer is HTTP 416"),
        (failing(204), "the answer is HTTP 204"),
        (
            stating(Content_Range="bytes 1-10/300000"),
            "the answer holds bytes 1-10/300000 instead of bytes 0-9/300000",
        ),
        (
            stating(Content_Range="bytes 0-9/300001"),
            "the answer holds bytes 0-9/300001 instead of bytes 0-9/300000",
        ),
        (stating(Content_Range="bytes 0-9/*"), "the answer holds bytes 0-9/* instead of bytes 0-9/300000"),
        (stating(Content_Encoding="gzip"), "the answer is encoded with gzip"),
    ],
)
def test_an_answer_to_another_question_is_refused_at_once(
    files: HubFiles, server: RangeServer, waits: list[float], fault, problem: str
) -> None:
    server.faults.append(fault)
    with pytest.raises(TransferError) as caught:
        files.read(SHARD, 0, 10)
    assert str(caught.value) == f"org/name@0123456/model.safetensors: asked for bytes 0 to 10, but {problem}"
    assert waits == []


def test_an_answer_without_content_range_is_refused(files: HubFiles, server: RangeServer) -> None:
    server.faults.append(lambda answer: type(answer)(206, {"Content-Length": "10"}, answer.body))
    with pytest.raises(TransferError, match="but the answer holds an unknown range instead of bytes 0-9/300000"):
        files.read(SHARD, 0, 10)


def test_more_bytes_than_asked_for_are_refused(files: HubFiles, server: RangeServer) -> None:
    server.faults.append(lambda answer: type(answer)(206, {**answer.headers, "Content-Length": "11"}, CONTENT[:11]))
    with pytest.raises(TransferError, match=r"safetensors: the answer has more bytes than were asked for$"):
        files.read(SHARD, 0, 10)


def test_a_whole_file_may_come_as_a_whole(files: HubFiles, server: RangeServer) -> None:
    server.faults.append(ignoring_range(SMALL))
    assert files.read("config.json", 0, len(SMALL)) == SMALL


def test_another_version_of_the_file_is_refused(server: RangeServer, waits: list[float]) -> None:
    server.redirect_headers["X-Linked-ETag"] = '"beef"'
    with pytest.raises(TransferError) as caught:
        open_files(server, waits, sha256="cafe").read(SHARD, 0, 10)
    assert str(caught.value) == "org/name@0123456/model.safetensors: the Hub offers beef instead of cafe"


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (403, {"X_Error_Code": "GatedRepo"}, "org/name is gated, and this account has not been let in"),
        (403, {}, "the token may not read org/name"),
        (
            401,
            {"X_Error_Message": "Invalid credentials in Authorization header"},
            "the Hub does not accept the token",
        ),
        (404, {"X_Error_Message": "Gone fishing"}, "the Hub answers HTTP 404 for org/name: Gone fishing"),
    ],
)
def test_a_refusal_by_the_hub_is_final(
    files: HubFiles, server: RangeServer, waits: list[float], status: int, headers: dict[str, str], message: str
) -> None:
    server.faults.append(failing(status, **headers))
    with pytest.raises(SourceError) as caught:
        files.read("config.json", 0, 4)
    assert str(caught.value) == message
    assert waits == []


def test_closing_ends_a_long_wait(server: RangeServer) -> None:
    entries = [FileEntry(SHARD, len(CONTENT))]
    files = HubFiles(REPO, SHA, entries=entries, token=False, endpoint=server.endpoint)
    server.faults.append(failing(429, Retry_After="300"))
    server.faults.append(failing(503))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(files.read, SHARD, 0, 10)
        wait_for(lambda: len(server.store_requests) == 1)
        files.close()
        # Whether the wait had begun when it was ended is a matter of luck.
        ending = r"did not arrive in (1 attempts; the last one: HTTP 429|2 attempts; the last one: HTTP 503)$"
        with pytest.raises(TransferError, match=ending):
            reading.result(timeout=10)


def test_endless_redirects_end(files: HubFiles, server: RangeServer) -> None:
    again = f"{server.endpoint}/{REPO}/resolve/{SHA}/config.json"
    server.faults.extend([failing(307, Location=again)] * 10)
    with pytest.raises(TransferError) as caught:
        files.read("config.json", 0, 4)
    assert str(caught.value) == "org/name@0123456/config.json is redirected more than 5 times"


def test_a_relative_redirect_keeps_the_token(files: HubFiles, server: RangeServer) -> None:
    server.content["moved.json"] = SMALL
    server.faults.append(failing(307, Location=f"/{REPO}/resolve/{SHA}/moved.json"))
    assert files.read("config.json", 0, 4) == SMALL[:4]
    assert server.seen[-1].headers["Authorization"] == "Bearer hf_secret"


def test_threads_share_the_files(files: HubFiles, server: RangeServer) -> None:
    server.faults.extend([failing(503), cut_after(10), failing(429)])
    starts = range(0, 300_000, 10_000)
    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda start: files.read(SHARD, start, start + 10_000), starts))
    assert b"".join(pieces) == CONTENT


def test_a_session_that_another_thread_closes_is_opened_again(server: RangeServer, waits: list[float]) -> None:
    def close_session_meanwhile(answer: Answer) -> Answer:
        huggingface_hub.close_session()
        return answer

    files = open_files(server, waits, attempts=30)
    server.faults.extend([close_session_meanwhile] * 20)
    starts = range(0, 300_000, 10_000)
    with ThreadPoolExecutor(4) as pool:
        pieces = list(pool.map(lambda start: files.read(SHARD, start, start + 10_000), starts))
    assert b"".join(pieces) == CONTENT


def test_a_file_of_the_hub_cache_is_read_from_the_disk(files: HubFiles, server, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--org--name" / "snapshots" / SHA
    snapshot.mkdir(parents=True)
    (snapshot / SHARD).write_bytes(CONTENT)
    assert files.read(SHARD, 5, 50) == CONTENT[5:50]
    assert files.local_path(SHARD) == (snapshot / SHARD).resolve()
    assert server.seen == []
    files.close()


def test_a_file_of_the_hub_cache_with_another_size_is_not_trusted(files: HubFiles, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--org--name" / "snapshots" / SHA
    snapshot.mkdir(parents=True)
    (snapshot / SHARD).write_bytes(CONTENT[:-1])
    assert files.local_path(SHARD) is None
    assert files.read(SHARD, 5, 50) == CONTENT[5:50]
