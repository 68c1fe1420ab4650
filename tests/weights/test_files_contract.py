"""What every kind of Files promises, checked on each of them with the same files."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import SourceError, TransferError
from hubmerge.localhub import LocalHub
from hubmerge.weights.files import FileEntry, Files, LocalFiles, read_small
from hubmerge.weights.hub_files import HubFiles
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.snapshot import open_snapshot
from tests.weights.range_server import REPO, SHA, RangeServer

CONTENT = {
    "config.json": b'{"a": 1}',
    "empty.txt": b"",
    "model.safetensors": random.Random(3).randbytes(100_000),
    "sub/naïve name.json": b"[]",
}


@contextmanager
def folder_files(folder: Path) -> Iterator[Files]:
    yield LocalFiles(fill(folder))


@contextmanager
def range_server_files(*, large: set[str]) -> Iterator[Files]:
    server = RangeServer(CONTENT, large=large)
    entries = [FileEntry(path, len(content)) for path, content in CONTENT.items()]
    yield HubFiles(REPO, SHA, entries=entries, token=False, endpoint=server.endpoint)
    server.close()


@contextmanager
def hub_files(hub: LocalHub, folder: Path) -> Iterator[Files]:
    api = HfApi(token=hub.token)
    if not api.repo_exists("local/contract"):
        api.create_repo("local/contract")
        api.upload_folder(repo_id="local/contract", folder_path=fill(folder))
        api.delete_file(".gitattributes", "local/contract")
    yield open_snapshot(ModelRef("local/contract"), token=False).files


@pytest.fixture(params=["folder", "range server", "redirecting range server", "hub"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    opened = {
        "folder": lambda: folder_files(tmp_path),
        "range server": lambda: range_server_files(large=set()),
        "redirecting range server": lambda: range_server_files(large=set(CONTENT)),
        "hub": lambda: hub_files(request.getfixturevalue("hub"), tmp_path),
    }[request.param]()
    with opened as files:
        yield files
        files.close()


def fill(folder: Path) -> Path:
    for path, content in CONTENT.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_entries_are_all_files_with_their_sizes_in_order(files: Files) -> None:
    sizes = [(path, entry.path, entry.size_bytes) for path, entry in files.entries().items()]
    assert sizes == [(path, path, len(CONTENT[path])) for path in sorted(CONTENT)]


def test_the_entries_cannot_be_changed(files: Files) -> None:
    with pytest.raises(TypeError):
        files.entries()["x"] = FileEntry("x", 1)  # type: ignore[index]


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 100_000), (99_999, 100_000), (12_345, 54_321), (5, 5)])
def test_a_range_is_start_to_stop(files: Files, start: int, stop: int) -> None:
    assert files.read("model.safetensors", start, stop) == CONTENT["model.safetensors"][start:stop]


def test_a_buffer_is_filled(files: Files) -> None:
    buffer = bytearray(b"#" * 20)
    files.read_into("model.safetensors", 1_000, memoryview(buffer)[5:15])
    assert buffer == b"#" * 5 + CONTENT["model.safetensors"][1_000:1_010] + b"#" * 5


@pytest.mark.parametrize("path", list(CONTENT))
def test_small_files_are_read_whole(files: Files, path: str) -> None:
    assert read_small(files, path, limit_bytes=100_000) == CONTENT[path]


def test_a_small_file_that_is_large_is_not_read(files: Files) -> None:
    with pytest.raises(SourceError) as caught:
        read_small(files, "model.safetensors", limit_bytes=99_999)
    assert str(caught.value) == (f"{files.label}/model.safetensors has 100,000 bytes; more than 99,999 are not read")


@pytest.mark.parametrize("path", ["none.json", "../secret", "/etc/hostname", "sub", "", "sub/../config.json"])
def test_what_is_not_listed_is_not_there(files: Files, path: str) -> None:
    with pytest.raises(SourceError) as caught:
        files.read(path, 0, 1)
    assert str(caught.value) == f"{files.label} has no file {path}"


def test_bytes_behind_the_end_do_not_arrive(files: Files) -> None:
    with pytest.raises(TransferError, match=r"ends 10 bytes too early, at 100,000$"):
        files.read("model.safetensors", 99_990, 100_010)


def test_a_local_path_has_the_same_content(files: Files) -> None:
    local = files.local_path("model.safetensors")
    assert local is None or local.read_bytes() == CONTENT["model.safetensors"]


def test_many_threads_read_at_once(files: Files) -> None:
    starts = range(0, 100_000, 5_000)
    with ThreadPoolExecutor(8) as pool:
        pieces = pool.map(lambda start: files.read("model.safetensors", start, start + 5_000), starts)
    assert b"".join(pieces) == CONTENT["model.safetensors"]
