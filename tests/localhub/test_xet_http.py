"""The HTTP interface of the Xet store, request by request: what it answers and what it refuses."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from hubmerge.localhub.cas import XetCas
from hubmerge.localhub.xet_format import XetFormatError
from tests.localhub.test_xet_format import BOOKEND, HELLO, SHARD_HEADER, WORLD, record
from tests.localhub.xet_stub import StubHub

XORB, OTHER, FILE = "11" * 32, "22" * 32, "33" * 32


def shard_of(*, stop: int = 2, unpacked_bytes: int = 11, xorb: str = XORB) -> bytes:
    term = record(bytes.fromhex(xorb), 0, unpacked_bytes, 0, stop)
    return SHARD_HEADER + record(bytes.fromhex(FILE), 0, 1) + term + BOOKEND + BOOKEND


def post(stub: StubHub, path: str, body: bytes) -> tuple[int, Any]:
    response = stub.send("POST", path, write=True, body=body)
    return response.status_code, response.json()


def add_hello_world(stub: StubHub) -> None:
    assert post(stub, f"/v1/xorbs/default/{XORB}", HELLO + WORLD) == (200, {"was_inserted": True})
    assert post(stub, "/v1/shards", shard_of()) == (200, {"result": 1})


def reconstruction(stub: StubHub, byte_range: str, *, version: str = "v2") -> Any:
    headers = {**stub.headers(write=False), "Range": byte_range}
    return stub.send("GET", f"/{version}/reconstructions/{FILE}", headers=headers)


def signed_url(stub: StubHub) -> str:
    url = reconstruction(stub, "bytes=0-10").json()["xorbs"][XORB][0]["url"]
    assert isinstance(url, str)
    return url


def test_the_second_upload_of_a_xorb_changes_nothing(stub):
    add_hello_world(stub)
    assert post(stub, f"/v1/xorbs/default/{XORB}", HELLO) == (200, {"was_inserted": False})
    assert [path.read_bytes() for path in stub.paths("xorbs")] == [HELLO + WORLD]


def test_a_reconstruction_names_terms_and_ranges(stub):
    add_hello_world(stub)
    answer = reconstruction(stub, "bytes=7-8").json()
    (fetch,) = answer["xorbs"][XORB]
    assert answer["offset_into_first_range"] == 2
    assert answer["terms"] == [{"hash": XORB, "unpacked_length": 6, "range": {"start": 1, "end": 2}}]
    assert fetch["ranges"] == [{"chunks": {"start": 1, "end": 2}, "bytes": {"start": 13, "end": 26}}]


def test_a_signed_url_needs_no_token(stub):
    add_hello_world(stub)
    response = stub.send("GET", signed_url(stub), headers={"Range": "bytes=0-26"})
    assert (response.status_code, response.content) == (206, HELLO + WORLD)
    assert response.headers["content-range"] == "bytes 0-26/27"


def test_several_ranges_come_as_parts_in_the_order_asked_for(stub):
    hello, hello_too = record(bytes.fromhex(XORB), 0, 5, 0, 1), record(bytes.fromhex(XORB), 0, 5, 2, 3)
    post(stub, f"/v1/xorbs/default/{XORB}", HELLO + WORLD + HELLO)
    post(stub, "/v2/shards", SHARD_HEADER + record(bytes.fromhex(FILE), 0, 2) + hello + hello_too + BOOKEND * 2)
    response = stub.send("GET", signed_url(stub), headers={"Range": "bytes=27-39,0-12"})
    boundary = response.headers["content-type"].removeprefix("multipart/byteranges; boundary=").encode()
    part_head = b"\r\n--" + boundary + b"\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes "
    parts = [part_head + span + b"/40\r\n\r\n" + HELLO for span in (b"27-39", b"0-12")]
    assert response.content == b"".join(parts) + b"\r\n--" + boundary + b"--\r\n"


@pytest.mark.parametrize("byte_range", ["bytes=0-25", "bytes=0-27", "bytes=0-26,0-27", "bytes=", "nonsense", None])
def test_a_signed_url_gives_its_own_ranges_only(stub, byte_range):
    add_hello_world(stub)
    response = stub.send("GET", signed_url(stub), headers={"Range": byte_range} if byte_range else {})
    assert response.status_code == 403


@pytest.mark.parametrize(
    ("old", "new"), [("0-26", "0-25"), ("expires=", "expires=9"), (XORB, OTHER), ("ture=", "ture=é")]
)
def test_a_signed_url_cannot_be_altered(stub, old, new):
    add_hello_world(stub)
    response = stub.send("GET", signed_url(stub).replace(old, new), headers={"Range": "bytes=0-26"})
    assert response.status_code == 403


@pytest.mark.parametrize(
    ("byte_range", "status"),
    [
        ("bytes=11-12", 416),
        ("bytes=99999999999999999999-", 416),
        ("bytes=5-4", 400),
        ("bytes=-5", 400),
        ("bytes=0-1,3-4", 400),
        ("bytes=a-b", 400),
        ("bytes=0-18446744073709551614", 200),
        ("bytes=10-", 200),
    ],
)
def test_ranges_of_a_file_are_checked(stub, byte_range, status):
    add_hello_world(stub)
    assert reconstruction(stub, byte_range).status_code == status
    assert reconstruction(stub, byte_range, version="v1").status_code == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/xorbs/default/{}"),
        ("HEAD", "/v1/xorbs/default/{}"),
        ("GET", "/v1/reconstructions/{}"),
        ("GET", "/v2/reconstructions/{}"),
        ("GET", "/xorbs/{}"),
    ],
)
@pytest.mark.parametrize("name", ["0" * 63, "A" * 64, "%2e%2e%5c" * 10, ".incoming-x", "%00" * 64])
def test_what_is_no_hash_is_a_bad_request(stub, method, path, name):
    assert stub.send(method, path.format(name), write=True).status_code == 400


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "../../../../etc/passwd", "%2fetc%2fpasswd"])
def test_no_path_leaves_the_store(stub, name):
    response = stub.send("POST", f"/v1/xorbs/default/{name}", write=True, body=HELLO)
    assert response.status_code in (400, 404, 405)
    assert stub.paths("") == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the xorb has no chunks"),
        (HELLO[:-1], "the xorb is cut off in the chunk at byte 0"),
        (b"\x00\xff\xff\xff\x00\xff\xff\xff", "the chunk at byte 0 unpacks to 16777215 bytes; 1 to 131072 can be"),
    ],
)
def test_a_broken_xorb_is_refused_and_leaves_nothing(stub, body, message):
    assert post(stub, f"/v1/xorbs/default/{XORB}", body) == (400, {"error": message})
    assert stub.paths("") == []


def test_an_endless_xorb_is_cut_off(stub, monkeypatch):
    monkeypatch.setattr("hubmerge.localhub.cas.MAX_XORB_BYTES", 10_000)
    answer = post(stub, f"/v1/xorbs/default/{XORB}", b"\x00" * 10_001)
    assert answer == (400, {"error": "the xorb is longer than 10000 bytes"})
    assert stub.paths("") == []


def test_an_upload_that_breaks_off_leaves_nothing(stub):
    token = stub.headers(write=True)["Authorization"]
    head = (
        f"POST /cas/v1/xorbs/default/{XORB} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 99\r\n\r\n"
    )
    with socket.create_connection(stub.origin.removeprefix("http://").split(":")) as connection:
        connection.sendall(head.encode() + HELLO)
        wait_until(lambda: stub.paths("xorbs"))
    wait_until(lambda: not stub.paths("xorbs"))
    assert post(stub, f"/v1/xorbs/default/{XORB}", HELLO) == (200, {"was_inserted": True})


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (b"nonsense", "the shard is cut off in its header"),
        (shard_of(xorb=OTHER), f"xorb {OTHER} was not uploaded"),
        (shard_of(stop=3), f"xorb {XORB} has 2 chunks, not 3"),
        (shard_of(unpacked_bytes=12), f"the chunks 0 to 2 of xorb {XORB} unpack to 11 bytes, not 12"),
    ],
)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_broken_shard_is_refused(stub, version, shard, message):
    post(stub, f"/v1/xorbs/default/{XORB}", HELLO + WORLD)
    assert post(stub, f"/{version}/shards", shard) == (400, {"error": message})
    assert stub.paths("files") == []


def test_a_chunk_that_does_not_unpack_is_found_when_the_file_is_rebuilt(stub, tmp_path):
    post(stub, f"/v1/xorbs/default/{XORB}", b"\x00\x07\x00\x00\x01\x0b\x00\x00garbage")
    post(stub, "/v1/shards", shard_of(stop=1))
    with pytest.raises(XetFormatError, match=r"^the chunk at byte 0 is not an LZ4 frame$"):
        stub.cas.write_file(FILE, tmp_path / "rebuilt")
    assert list(tmp_path.iterdir()) == [stub.root]


def test_an_unknown_file_is_named(stub, tmp_path):
    assert reconstruction(stub, "bytes=0-1").json() == {"error": f"no file has the Xet hash {FILE}"}
    assert stub.cas.file_hash("0" * 64) is None
    assert stub.cas.file_hash("../secret") is None
    with pytest.raises(KeyError, match=FILE):
        stub.cas.file_size(FILE)


def test_head_tells_whether_a_xorb_is_there(stub):
    add_hello_world(stub)
    assert stub.send("HEAD", f"/v1/xorbs/default/{XORB}").status_code == 200
    assert stub.send("HEAD", f"/v1/xorbs/default/{OTHER}").status_code == 404


def test_optional_endpoints_are_absent(stub):
    assert stub.send("GET", f"/v1/chunks/default/{XORB}").status_code == 404
    assert stub.send("POST", f"/v1/xorb-grants/default/{XORB}").status_code == 404


def test_an_expired_token_is_refused(stub):
    response = stub.send("HEAD", f"/v1/xorbs/default/{XORB}", headers=stub.headers(write=True, lifetime_seconds=0))
    assert response.status_code == 401


@pytest.mark.parametrize("token", ["", "Bearer x", "Bearer ..", "Basic eDp5", "Bearer e30=.\u00e9"])
def test_a_made_up_token_is_refused(stub, token):
    headers = {"Authorization": token.encode("latin-1")}
    response = stub.send("GET", f"/v2/reconstructions/{XORB}", headers=headers)
    assert response.json() == {"error": "the Xet access token is missing or was not issued here"}
    assert response.status_code == 401


@pytest.mark.parametrize("path", [f"/v1/xorbs/default/{XORB}", "/v1/shards", "/v2/shards"])
def test_a_read_token_cannot_write(stub, path):
    response = stub.send("POST", path, write=False, body=HELLO)
    assert response.json() == {"error": "the Xet access token may only read"}
    assert response.status_code == 403


def test_a_token_of_another_store_is_refused(stub):
    token, _ = XetCas(stub.root, secret=b"other").issue_token(scope="test", write=True, now=time.time())
    response = stub.send("POST", "/v1/shards", headers={"Authorization": f"Bearer {token}"}, body=shard_of())
    assert response.status_code == 401
