from __future__ import annotations

import errno
import itertools
import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from hubmerge.errors import LimitError, PublishError
from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.merge.progress import Silent, Stage
from tests.chaos.disk import fill, make_room
from tests.checkpoints import write_llama
from tests.merge.interrupted import OPTIONS, TWO_SHARDS, run_until
from tests.merge.merging import hashes
from tests.merge.recipes import whole

Llamas = tuple[Path, Path, Path]
SHARDS = 5


@dataclass
class Noting(Silent):
    """Notes the files that an earlier run finished."""

    skipped: list[str] = field(default_factory=list)

    def skip(self, filename: str, size_bytes: int) -> None:
        self.skipped.append(filename)


@pytest.fixture(scope="module")
def recipe(llamas: Llamas) -> dict[str, Any]:
    return whole("dare_ties", *llamas[1:], base_model=llamas[0], parameters={"weight": 0.5, "density": 0.5})


@pytest.fixture(scope="module")
def expected(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Returns the hashes of what the recipe makes without interruption."""
    folder = tmp_path_factory.mktemp("clean") / "out"
    merge_to_folder(recipe, folder, options=OPTIONS)
    return hashes(folder)


def assert_not_loadable(folder: Path) -> None:
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    ("moment", "calls", "finished_shards"),
    [
        ("tensor", 1, 0),
        ("tensor", 20, 1),
        ("shard", 1, 1),
        ("shard", SHARDS, SHARDS),
        ("move", 1, SHARDS),
        ("move", 4, SHARDS),
        ("move", 13, SHARDS),
    ],
)
def test_a_killed_merge_leaves_nothing_that_loads_and_goes_on(
    tmp_path: Path,
    recipe: dict[str, Any],
    expected: dict[str, str],
    moment: str,
    calls: int,
    finished_shards: int,
) -> None:
    out = tmp_path / "out"
    assert run_until(recipe, out, moment, calls) == -signal.SIGKILL
    assert_not_loadable(out)
    noting = Noting()
    merge_to_folder(recipe, out, options=OPTIONS, progress=noting)
    assert hashes(out) == expected
    assert len(noting.skipped) >= finished_shards


def test_a_merge_killed_before_any_of_its_changes_to_the_disk_goes_on(tmp_path: Path) -> None:
    parents = (write_llama(tmp_path / f"parent-{seed}", seed=seed) for seed in (1, 2))
    recipe = whole("linear", *parents, parameters={"weight": 0.5})
    merge_to_folder(recipe, tmp_path / "clean" / "out", options=TWO_SHARDS)
    expected = hashes(tmp_path / "clean" / "out")
    for number in itertools.count(1):
        out = tmp_path / f"killed-{number}" / "out"
        was_killed = run_until(recipe, out, "event", number, TWO_SHARDS) == -signal.SIGKILL
        looks_complete = (out / "config.json").exists() and (out / "model.safetensors.index.json").exists()
        assert not looks_complete or hashes(out).items() >= expected.items(), number
        assert was_killed
        if hashes(out) == expected:  # it died when it had only an empty folder left to remove
            break
        merge_to_folder(recipe, out, options=TWO_SHARDS)
        assert hashes(out) == expected, number
    with pytest.raises(PublishError, match=r"holds this very merge, of a run that was killed when it had finished$"):
        merge_to_folder(recipe, out, options=TWO_SHARDS)
    assert not list(out.glob(".hubmerge-*"))
    assert number > 30


def test_a_merge_killed_after_its_last_move_is_complete_and_can_be_run_again(
    tmp_path: Path, recipe: dict[str, Any], expected: dict[str, str]
) -> None:
    out = tmp_path / "out"
    assert run_until(recipe, out, "tidy", 1) == -signal.SIGKILL
    AutoModelForCausalLM.from_pretrained(out)
    merge_to_folder(recipe, out, options=OPTIONS)
    assert hashes(out) == expected


def test_the_rest_of_a_killed_merge_is_not_mixed_with_another_recipes(tmp_path: Path, recipe: dict[str, Any]) -> None:
    out = tmp_path / "out"
    run_until(recipe, out, "move", 4)
    before = hashes(out)
    with pytest.raises(
        PublishError, match=r"holds an unfinished merge of another plan \(\.hubmerge-.*:\n  - recipe.seed: was 0, is 1$"
    ):
        merge_to_folder({**recipe, "seed": 1}, out, options=OPTIONS)
    assert hashes(out) == before


def test_a_shard_that_was_cut_short_is_made_again(
    tmp_path: Path, recipe: dict[str, Any], expected: dict[str, str]
) -> None:
    out = tmp_path / "out"
    run_until(recipe, out, "move", 1)
    shard = next(iter(sorted(out.glob(".hubmerge-*/*-00002-of-*.safetensors"))))
    os.truncate(shard, 100)
    merge_to_folder(recipe, out, options=OPTIONS)
    assert hashes(out) == expected


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@dataclass
class Meanwhile(Silent):
    """Does something once, in the middle of a shard."""

    do: Callable[[], object]
    tensors: int = 3

    def advance(self, stage: Stage, size_bytes: int) -> None:
        if stage is Stage.MERGE:
            self.tensors -= 1
            if self.tensors == 0:
                self.do()


def test_files_that_may_not_grow_any_more_stop_a_merge_in_the_middle_of_a_shard(
    tmp_path: Path, recipe: dict[str, Any], expected: dict[str, str]
) -> None:
    out = tmp_path / "out"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    shrinking = Meanwhile(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard)))
    with (
        file_size_limit(resource.RLIM_INFINITY if hard == resource.RLIM_INFINITY else hard),
        pytest.raises(
            PublishError, match=r"safetensors\.part would be larger than its file system or `ulimit -f` allows$"
        ),
    ):
        merge_to_folder(recipe, out, options=OPTIONS, progress=shrinking)
    assert not (out / "config.json").exists()
    merge_to_folder(recipe, out, options=OPTIONS)
    assert hashes(out) == expected


def test_a_file_that_may_not_grow_is_one_sentence_and_leaves_nothing(tmp_path: Path, recipe: dict[str, Any]) -> None:
    out = tmp_path / "out"
    with file_size_limit(4_096), pytest.raises(PublishError) as caught:
        merge_to_folder(recipe, out, options=OPTIONS)
    part = str(caught.value).split(" would be larger", 1)[0]
    assert part.endswith("/model-00001-of-00005.safetensors.part")
    assert str(caught.value) == f"{part} would be larger than its file system or `ulimit -f` allows"
    assert not out.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Returns the mount point of a file system of 24 kB, which `remount` makes larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", disk]).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def remount(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def test_a_disk_that_somebody_else_fills_in_the_middle_of_a_shard_stops_a_merge_that_goes_on(
    small_disk: Path, recipe: dict[str, Any], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "as on NFS, which cannot reserve space")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    remount(small_disk, "1m")
    out = small_disk / "out"
    with pytest.raises(PublishError) as caught:
        merge_to_folder(recipe, out, options=OPTIONS, progress=Meanwhile(lambda: fill(small_disk)))
    assert re.fullmatch(
        rf"model-0000\d-of-00005\.safetensors\.part needs [\d,]+ bytes more, but {out}/\.hubmerge-\w+ has [\d,]+ free",
        str(caught.value),
    )
    assert_not_loadable(out)
    make_room(small_disk)
    merge_to_folder(recipe, out, options=OPTIONS)
    assert hashes(out) == expected


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(
    small_disk: Path, recipe: dict[str, Any], expected: dict[str, str]
) -> None:
    out = small_disk / "out"
    with pytest.raises(LimitError, match=r"^the output needs [\d,]+ bytes of disk in .*/out, which has [\d,]+ free$"):
        merge_to_folder(recipe, out, options=OPTIONS)
    assert_not_loadable(out)
    remount(small_disk, "64k")
    with pytest.raises(PublishError) as caught:
        merge_to_folder(recipe, out, options=OPTIONS)
    assert str(caught.value) == f"{out}: No space left on device"
    assert caught.value.hint == "Make room and run the same command."
    assert_not_loadable(out)
    remount(small_disk, "1m")
    noting = Noting()
    merge_to_folder(recipe, out, options=OPTIONS, progress=noting)
    assert len(noting.skipped) >= SHARDS - 1  # there may have been no room to note that the last is finished
    assert hashes(out) == expected
