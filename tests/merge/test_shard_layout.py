from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hubmerge.merge.documents import model_files
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_to_folder, open_merge, plan_recipe, planned_licence
from hubmerge.merge.plan import Plan
from hubmerge.merge.stream import StreamOptions
from hubmerge.merge.summary import plan_summary
from tests.checkpoints import write_llama, write_tensors
from tests.merge.recipes import sliced, whole

Llamas = tuple[Path, Path, Path]


def planned(tmp_path: Path, sizes: dict[str, int], *, shard_bytes: int) -> Plan:
    """Returns the plan of copying tensors of so many bytes."""
    tensors = {name: torch.zeros(size, dtype=torch.uint8) for name, size in sizes.items()}
    model = write_tensors(tmp_path / "model", tensors)
    return plan_recipe(whole("passthrough", model), MergeOptions(shard_bytes=shard_bytes))


def layout(plan: Plan) -> dict[str, list[str]]:
    return {shard.filename: [tensor.info.name for tensor in shard.tensors] for shard in plan.shards}


def test_what_fits_into_one_file_is_one_file_without_an_index(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"a": 60, "b": 40}, shard_bytes=100)
    assert layout(plan) == {"model.safetensors": ["a", "b"]}
    assert list(model_files(plan)) == ["config.json"]


def test_a_file_ends_before_the_tensor_that_would_exceed_it(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"a": 60, "b": 40, "c": 1, "d": 99}, shard_bytes=100)
    assert layout(plan) == {
        "model-00001-of-00002.safetensors": ["a", "b"],
        "model-00002-of-00002.safetensors": ["c", "d"],
    }


def test_a_tensor_larger_than_a_file_gets_its_own_and_leaves_no_empty_one(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"a": 500, "b": 10, "c": 500, "d": 500}, shard_bytes=100)
    assert [list(names) for names in layout(plan).values()] == [["a"], ["b"], ["c"], ["d"]]


def test_a_single_tensor_larger_than_a_file_is_a_single_file(tmp_path: Path) -> None:
    assert layout(planned(tmp_path, {"a": 500}, shard_bytes=100)) == {"model.safetensors": ["a"]}


def test_tensors_without_elements_are_laid_out_too(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"a": 0, "b": 100, "c": 0}, shard_bytes=100)
    assert layout(plan) == {"model.safetensors": ["a", "b", "c"]}


def test_the_index_names_every_tensor_and_the_bytes_of_all(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"b": 60, "a": 60}, shard_bytes=100)
    assert json.loads(model_files(plan)["model.safetensors.index.json"]) == {
        "metadata": {"total_size": 120, "total_parameters": 120},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }


def test_a_push_needs_room_for_the_two_largest_files_that_follow_each_other(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"a": 500, "b": 10, "c": 300, "d": 400}, shard_bytes=100)
    sizes = [shard.size_bytes for shard in plan.shards]
    assert plan.disk_bytes == sizes[2] + sizes[3]
    assert planned(tmp_path, {"a": 500}, shard_bytes=100).disk_bytes == sizes[0]


@pytest.mark.parametrize("shard_bytes", [3_000, 20_000, 10**9])
def test_the_plan_knows_the_bytes_that_are_written(tmp_path: Path, llamas: Llamas, shard_bytes: int) -> None:
    options = MergeOptions(shard_bytes=shard_bytes)
    recipe = whole("slerp", llamas[0], llamas[1], base_model=llamas[0], parameters={"t": 0.5})
    plan = plan_recipe(recipe, options)
    merge_to_folder(recipe, tmp_path / "out", options=options)
    written = {path.name: path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors")}
    assert written == {shard.filename: shard.size_bytes for shard in plan.shards}
    assert sum(written.values()) == plan.write_bytes


def test_the_plan_knows_the_bytes_of_weights_that_are_read(tmp_path: Path) -> None:
    parent = write_llama(tmp_path / "parent", seed=1, tokenizer=False, max_shard_size="10KB")
    stored = sum(
        path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little")
        for path in parent.glob("*.safetensors")
    )
    plan = plan_recipe(whole("passthrough", parent))
    assert (plan.read_bytes, plan.parents[0].stored_bytes) == (stored, stored)


def test_layers_that_are_left_out_are_not_read_and_those_stacked_twice_are_read_twice(llamas: Llamas) -> None:
    whole_model = plan_recipe(whole("passthrough", llamas[0])).read_bytes
    per_layer = whole_model - plan_recipe(sliced("passthrough", {llamas[0]: (0, 3)})).read_bytes
    twice = plan_recipe(sliced("passthrough", {llamas[0]: (0, 4)}, {llamas[0]: (1, 4)}))
    assert twice.read_bytes == whole_model + 3 * per_layer


def test_a_tensor_that_one_merge_uses_twice_is_read_once(llamas: Llamas) -> None:
    inner = whole("task_arithmetic", (llamas[1], {"weight": 1}), base_model=llamas[0])
    outer = whole("task_arithmetic", (inner, {"weight": 1}), base_model=llamas[0])
    assert [parent.read_bytes == parent.stored_bytes for parent in plan_recipe(outer).parents] == [True, True]


def test_the_summary_is_json_and_says_what_the_plan_says(llamas: Llamas) -> None:
    recipe = whole("ties", (llamas[1], {"weight": 0.5, "density": [0.2, 0.8]}), base_model=llamas[0])
    with open_merge(recipe) as merge:
        licence = planned_licence(merge)
        summary = json.loads(json.dumps(plan_summary(merge.plan, merge.checkpoints, StreamOptions(threads=2), licence)))
    assert (summary["method"], summary["layers"], summary["seed"]) == ("ties", 4, 0)
    assert summary["parents"][1] == {
        "model": str(llamas[1]),
        "sha": None,
        "role": "weight 0.5, density [0.2, 0.8]",
        "read_bytes": merge.plan.parents[1].stored_bytes,
        "stored_bytes": merge.plan.parents[1].stored_bytes,
    }
    assert summary["shards"] == [{"filename": "model.safetensors", "tensors": 39, "size_bytes": summary["write_bytes"]}]
    assert sum(group["count"] for group in summary["tensors"]) == 39
    assert summary["read_bytes"] == sum(parent["read_bytes"] for parent in summary["parents"])
    assert summary["parameters"] * 2 == summary["parents"][0]["stored_bytes"]
    assert summary["memory_bytes"] > 300_000_000
