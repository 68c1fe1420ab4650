from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
import torch

from hubmerge.errors import PublishError
from hubmerge.weights.header import build_header
from hubmerge.weights.shards import HASH_BLOCK_BYTES, ShardFile


def test_a_shard_filled_from_its_header_is_a_safetensors_file(tmp_path: Path) -> None:
    first, second = torch.arange(6.0).reshape(2, 3), torch.ones(4, dtype=torch.bfloat16)
    header, infos = build_header([("a", "F32", (2, 3)), ("b", "BF16", (4,))])
    shard = ShardFile.create(tmp_path / "model.safetensors", header, size_bytes=infos[-1].stop)
    shard.write(infos[1].start, memoryview(second.view(torch.uint8).numpy()))
    shard.write(infos[0].start, memoryview(first.numpy()))
    finished = shard.finish(durable=True)
    loaded = safetensors.torch.load_file(finished.path)
    assert torch.equal(loaded["a"], first)
    assert torch.equal(loaded["b"], second)
    assert finished.size_bytes == infos[-1].stop
    assert finished.sha256 == hashlib.sha256(finished.path.read_bytes()).hexdigest()


def test_pieces_in_any_order_from_many_threads_give_the_same_hash(tmp_path: Path) -> None:
    content = random.Random(7).randbytes(3 * HASH_BLOCK_BYTES + 12_345)
    step = 70_001
    offsets = list(range(0, len(content), step))
    random.Random(8).shuffle(offsets)
    shard = ShardFile.create(tmp_path / "x", b"", size_bytes=len(content))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda offset: shard.write(offset, content[offset : offset + step]), offsets))
    finished = shard.finish()
    assert finished.path.read_bytes() == content
    assert finished.sha256 == hashlib.sha256(content).hexdigest()


def test_the_final_name_appears_only_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    shard = ShardFile.create(path, b"head", size_bytes=8)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors.part"]
    shard.write(4, b"tail")
    shard.finish()
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_space_is_reserved_before_anything_is_written(tmp_path: Path) -> None:
    shard = ShardFile.create(tmp_path / "x", b"", size_bytes=10_000_000)
    status = (tmp_path / "x.part").stat()
    shard.abort()
    assert status.st_size == 10_000_000
    assert status.st_blocks * 512 >= 10_000_000


def test_an_aborted_shard_leaves_nothing_and_an_older_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"older")
    shard = ShardFile.create(path, b"head", size_bytes=8)
    shard.abort()
    shard.abort()
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_bytes() == b"older"


def test_a_shard_with_a_hole_is_not_finished(tmp_path: Path) -> None:
    shard = ShardFile.create(tmp_path / "x", b"head", size_bytes=8)
    shard.write(5, b"ail")
    with pytest.raises(AssertionError, match="x is not filled"):
        shard.finish()
    shard.abort()


def test_a_byte_is_written_once(tmp_path: Path) -> None:
    shard = ShardFile.create(tmp_path / "x", b"head", size_bytes=8)
    with pytest.raises(AssertionError, match="byte 0 was written twice"):
        shard.write(0, b"head")
    shard.abort()


def test_nothing_is_written_behind_the_end(tmp_path: Path) -> None:
    shard = ShardFile.create(tmp_path / "x", b"head", size_bytes=8)
    with pytest.raises(AssertionError, match="x ends before byte 9"):
        shard.write(5, b"tail")
    shard.abort()


def test_an_empty_tensor_needs_no_bytes(tmp_path: Path) -> None:
    shard = ShardFile.create(tmp_path / "x", b"head", size_bytes=4)
    shard.write(4, memoryview(torch.zeros(0, 3).numpy()))
    assert shard.finish().sha256 == hashlib.sha256(b"head").hexdigest()


def test_a_missing_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PublishError) as caught:
        ShardFile.create(tmp_path / "none" / "x", b"", size_bytes=1)
    assert str(caught.value) == f"cannot write {tmp_path}/none/x.part: No such file or directory"


def test_a_shard_that_no_disk_can_hold_says_what_is_needed_and_leaves_nothing(tmp_path: Path) -> None:
    size_bytes = 1 << 50
    with pytest.raises(PublishError) as caught:
        ShardFile.create(tmp_path / "x", b"", size_bytes=size_bytes)
    message = str(caught.value)
    assert message.startswith(f"x.part needs 1,125,899,906,842,624 bytes more, but {tmp_path} has ")
    assert message.endswith(" free")
    assert caught.value.hint == "Free some space, choose another folder, or write smaller shards."
    assert list(tmp_path.iterdir()) == []


def test_a_shard_above_the_limit_of_a_file_is_told_from_a_full_disk(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(PublishError) as caught:
            ShardFile.create(tmp_path / "x", b"", size_bytes=2_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert str(caught.value) == f"{tmp_path}/x.part would be larger than its file system or `ulimit -f` allows"
    assert caught.value.hint == "Write smaller shards (--shard-size), or choose another folder."
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_preallocate_is_written_all_the_same(tmp_path: Path, monkeypatch) -> None:
    def refuse(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    shard = ShardFile.create(tmp_path / "x", b"head", size_bytes=8)
    shard.write(4, b"tail")
    assert shard.finish().path.read_bytes() == b"headtail"
