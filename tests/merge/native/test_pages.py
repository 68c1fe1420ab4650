"""Ranges of local files that are seen where the system holds them."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from hubmerge.errors import TransferError
from hubmerge.merge.expr import Load
from hubmerge.merge.native import pages
from hubmerge.merge.native.pages import MappedRange, can_map
from hubmerge.merge.read_ahead import MappedTensor, stored_tensor
from hubmerge.weights.files import LocalFiles
from hubmerge.weights.header import TensorInfo

pytestmark = pytest.mark.skipif(not can_map(), reason="needs the compiled library, and Linux 5.14")

CONTENT = random.Random(1).randbytes(100_000)
START = 4_104


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(CONTENT)
    return tmp_path / "model.safetensors"


def tensor_of(path: Path) -> MappedTensor:
    """Returns what lies behind the first bytes of the file."""
    load = Load(0, path.name, TensorInfo("w", "U8", (len(CONTENT) - START,), START, len(CONTENT)))
    tensor = stored_tensor(LocalFiles(path.parent), load, threading.Event())
    assert isinstance(tensor, MappedTensor)
    return tensor


def test_any_range_is_what_the_file_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "READY_BYTES", 10_000)
    tensor, size = tensor_of(path), len(CONTENT) - START
    for start, stop in [(0, size), (1, 2), (9_000, 30_001), (0, 5), (size - 1, size), (12_345, 12_345)]:
        assert tensor.read(start, stop).tobytes() == CONTENT[START + start : START + stop]


def test_a_file_that_was_cut_off_is_an_error_that_says_where(path: Path) -> None:
    tensor = tensor_of(path)
    os.truncate(path, 50_000)
    with pytest.raises(TransferError, match=r"model\.safetensors ends .* bytes too early, at 50,000"):
        tensor.read(0, len(CONTENT) - START)


def test_pages_behind_the_end_of_a_file_are_refused_before_they_are_read(path: Path) -> None:
    mapped = MappedRange(path, START, len(CONTENT) - START)
    os.truncate(path, 50_000)
    with pytest.raises(OSError, match="Bad address"):
        mapped.read(80_000, 90_000)


def test_a_file_that_nobody_may_map_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubmerge.merge.read_ahead.can_map", lambda: False)
    load = Load(0, path.name, TensorInfo("w", "U8", (len(CONTENT) - START,), START, len(CONTENT)))
    tensor = stored_tensor(LocalFiles(path.parent), load, threading.Event())
    assert tensor.read(3, 10).tobytes() == CONTENT[START + 3 : START + 10]
