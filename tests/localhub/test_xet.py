"""The Xet store as the real client, hf_xet, uses it."""

from __future__ import annotations

import hashlib
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hubmerge.localhub.cas import XetCas
from hubmerge.localhub.xet_format import scan_xorb
from tests.localhub.xet_stub import StubHub

hf_xet = pytest.importorskip("hf_xet")

MIB = 1024 * 1024
MULTI_RANGE = {"client.enable_multirange_fetching": True}
FIRST_API = {"client.reconstruction_api_version": 1, "client.shard_api_version": 1}


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return new_session(tmp_path / "client", monkeypatch)


def new_session(cache: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any] | None = None) -> Any:
    monkeypatch.setenv("HF_XET_CACHE", str(cache))
    return hf_xet.XetSession(hf_xet.XetConfig().with_config({"telemetry.enabled": False} | (config or {})))


def upload(stub: StubHub, session: Any, data: bytes) -> Any:
    url = f"{stub.origin}/token/write"
    with session.new_upload_commit(token_refresh_url=url, token_refresh_headers={}) as commit:
        handle = commit.start_upload_bytes(data)
    return handle.result().xet_info


def download(stub: StubHub, session: Any, info: Any, start: int | None = None, stop: int | None = None) -> bytes:
    group = session.new_download_stream_group(token_refresh_url=f"{stub.origin}/token/read", token_refresh_headers={})
    return b"".join(bytes(block) for block in group.download_stream(info, start, stop))


def random_bytes(count: int, *, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


def float_bytes(count: int) -> bytes:
    generator = random.Random(0)
    return struct.pack(f"<{count}f", *(generator.gauss(0, 0.02) for _ in range(count)))


FILES = {
    "empty": b"",
    "one byte": b"x",
    "5 MB random": random_bytes(5_000_003),
    "20 MB compressible": b"a line that comes again\n" * 833_333,
    "floats": float_bytes(250_000),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES.keys())
def test_a_file_comes_back_as_it_was_uploaded(stub, session, tmp_path, data):
    info = upload(stub, session, data)
    sha256 = hashlib.sha256(data).hexdigest()
    assert stub.cas.file_hash(sha256) == info.hash
    assert stub.cas.file_size(info.hash) == len(data)
    assert stub.cas.write_file(info.hash, tmp_path / "rebuilt") == sha256
    assert (tmp_path / "rebuilt").read_bytes() == data
    assert download(stub, session, info) == data


def test_floats_are_uploaded_in_byte_groups_which_the_store_can_undo(stub, session):
    upload(stub, session, FILES["floats"])
    (xorb,) = stub.paths("xorbs")
    with xorb.open("rb") as file:
        assert {chunk.scheme for chunk in scan_xorb(file, xorb.stat().st_size)} >= {2}


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1_000_000, 1_500_001), (4_999_999, 5_000_003), (0, 5_000_003)])
def test_a_range_comes_back(stub, session, start, stop):
    data = FILES["5 MB random"]
    info = upload(stub, session, data)
    assert download(stub, session, info, start, stop) == data[start:stop]


def test_a_range_fetches_only_its_chunks(stub, session):
    info = upload(stub, session, FILES["5 MB random"])
    download(stub, session, info, 2_000_000, 2_000_010)
    first, last = stub.log[-1].split("bytes=")[1].split("-")
    assert int(last) - int(first) < 2 * 128 * 1024


def test_the_first_version_of_the_api_works_too(stub, tmp_path, monkeypatch):
    session = new_session(tmp_path / "client", monkeypatch, FIRST_API)
    info = upload(stub, session, FILES["5 MB random"])
    assert download(stub, session, info) == FILES["5 MB random"]
    assert any("/cas/v1/shards" in line for line in stub.log)
    assert any("/cas/v1/reconstructions/" in line for line in stub.log)


@pytest.mark.parametrize("config", [{}, MULTI_RANGE], ids=["single ranges", "multi-range"])
def test_scattered_pieces_of_a_xorb_come_back(stub, tmp_path, monkeypatch, config):
    session = new_session(tmp_path / "client", monkeypatch, config)
    donor = FILES["5 MB random"]
    upload(stub, session, donor)
    data = donor[:MIB] + random_bytes(MIB, seed=1) + donor[3 * MIB :]
    info = upload(stub, session, data)
    assert download(stub, session, info) == data
    assert any("bytes=" in line and "," in line for line in stub.log) == bool(config)


def test_an_upload_that_is_there_already_stores_nothing(stub, tmp_path, monkeypatch):
    first = upload(stub, new_session(tmp_path / "one", monkeypatch), FILES["5 MB random"])
    before = stub.paths("xorbs")
    again = upload(stub, new_session(tmp_path / "two", monkeypatch), FILES["5 MB random"])
    assert (again.hash, stub.paths("xorbs")) == (first.hash, before)


def test_a_changed_file_shares_its_unchanged_chunks(stub, session):
    data = FILES["5 MB random"]
    upload(stub, session, data)
    upload(stub, session, data[:4_000_000] + b"changed" + data[4_000_000:])
    stored = sum(path.stat().st_size for path in stub.paths("xorbs"))
    assert stored < len(data) + MIB


def test_several_clients_upload_at_once(stub, tmp_path, monkeypatch):
    files = [random_bytes(300_000, seed=seed % 4) for seed in range(8)]
    sessions = [new_session(tmp_path / str(index), monkeypatch) for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        infos = list(pool.map(lambda session, data: upload(stub, session, data), sessions, files))
    assert [download(stub, sessions[0], info) for info in infos] == files


def test_the_store_survives_a_restart(stub, session, tmp_path):
    info = upload(stub, session, FILES["floats"])
    reopened = XetCas(stub.root, secret=b"secret")
    assert reopened.file_hash(hashlib.sha256(FILES["floats"]).hexdigest()) == info.hash
    reopened.write_file(info.hash, tmp_path / "rebuilt")
    assert (tmp_path / "rebuilt").read_bytes() == FILES["floats"]
