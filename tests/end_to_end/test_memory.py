"""A merge that is larger than the memory it may take, and what it is told when even that is too little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hubmerge.errors import LimitError
from hubmerge.localhub import LocalHub
from hubmerge.merge.memory import PROCESS_BYTES, memory_bytes
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_and_push, merge_to_folder, open_merge
from hubmerge.weights.shards import hash_file
from tests.checkpoints import push_folder, write_tensors
from tests.end_to_end.merges import Parents, linear, new_repo

LARGE = 3072
"""Rows and columns of a tensor of 36 MiB."""

MEASURED = """
import json, sys
from pathlib import Path
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_to_folder
recipe, folder, budget = sys.argv[1:]
merge_to_folder(json.loads(recipe), folder, options=MergeOptions(memory_bytes=int(budget)))
status = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:")))
"""


def peak_bytes(recipe: dict[str, object], folder: Path, budget_bytes: int) -> int:
    """Returns the most memory that the merge took, as a process of its own."""
    words = [sys.executable, "-c", MEASURED, json.dumps(recipe), str(folder), str(budget_bytes)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def two_on_the_hub(hub: LocalHub, folder: Path, *, size: int) -> tuple[str, ...]:
    generator = torch.Generator().manual_seed(size)
    repos = []
    for name in ("one", "two"):
        tensors = {"model.layers.0.weight": torch.randn(size, size, generator=generator)}
        path = write_tensors(folder / f"{name}-{size}", tensors, {"model_type": "llama", "num_hidden_layers": 1})
        repos.append(push_folder(hub.token, f"local/{name}-{size}", path))
    return tuple(f"local/{name}-{size}" for name in ("one", "two"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_a_tensor_larger_than_the_budget_is_merged_within_it(hub: LocalHub, tmp_path: Path) -> None:
    small = linear(two_on_the_hub(hub, tmp_path, size=64)) | {"dtype": "float32"}
    large = linear(two_on_the_hub(hub, tmp_path, size=LARGE)) | {"dtype": "float32"}
    budget = PROCESS_BYTES + (40 << 20)
    base = peak_bytes(small, tmp_path / "small", budget)
    peak = peak_bytes(large, tmp_path / "large", budget)
    assert peak - base < 56 << 20 < 2 * 4 * LARGE**2
    assert peak < budget
    whole = tmp_path / "whole"
    merge_to_folder(large, whole, options=MergeOptions(memory_bytes=10**10))
    assert hash_file(whole / "model.safetensors") == hash_file(tmp_path / "large" / "model.safetensors")


def test_threads_and_read_ahead_follow_from_the_budget(parents: Parents) -> None:
    budget = PROCESS_BYTES + (12 << 20)
    with open_merge(parents.recipe(), MergeOptions(memory_bytes=budget)) as merge:
        assert memory_bytes(merge.plan, merge.checkpoints, merge.options.stream) <= budget


def test_a_budget_that_cannot_be_kept_is_refused_before_anything_is_read(parents: Parents, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match=r"^this merge needs \d+ MB of memory at least, and the budget is 200 MB$"):
        merge_to_folder(parents.recipe(), tmp_path / "out", options=MergeOptions(memory_bytes=200_000_000))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("budget", [300_000, 500_000])
def test_a_push_stays_within_the_disk_budget_or_says_what_it_needs(
    hub: LocalHub, parents: Parents, budget: int
) -> None:
    options = MergeOptions(shard_bytes=400_000, disk_bytes=budget)
    if budget == 300_000:
        with pytest.raises(LimitError) as caught:
            merge_and_push(parents.recipe(), new_repo(), target_token=hub.token, options=options)
        assert str(caught.value).endswith(" bytes of disk at least, and the budget is 300,000")
        assert caught.value.hint == "Write smaller shards (--shard-size 150000), or raise --disk-budget."
    else:
        assert merge_and_push(parents.recipe(), new_repo(), target_token=hub.token, options=options).commit


def test_a_folder_larger_than_the_disk_budget_is_refused(parents: Parents, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match=r"^this merge writes 1,\d{3},\d{3} bytes, and the disk budget is 1,000,000$"):
        merge_to_folder(parents.recipe(), tmp_path / "out", options=MergeOptions(disk_bytes=1_000_000))
