from __future__ import annotations

from pathlib import Path

import torch
import yaml

from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.normalise import normalised_recipe
from hubmerge.merge.pipeline import plan_recipe
from tests.checkpoints import read_tensors
from tests.merge.merging import hashes, merged
from tests.merge.recipes import sliced, whole

Llamas = tuple[Path, Path, Path]

BLEND = """
name: blend
merge_method: dare_ties
base_model: {base}
dtype: bfloat16
seed: 5
models:
  - model: {first}
    parameters: {{weight: 0.7, density: 0.6}}
  - model: {second}
    parameters: {{weight: 0.5, density: [0.3, 0.9]}}
"""
STACK = """
name: stack
merge_method: passthrough
dtype: bfloat16
slices:
  - sources: [{{model: {blend}, layer_range: [0, 3]}}]
  - sources: [{{model: {base}, layer_range: [1, 4]}}]
"""
FINAL = """
merge_method: slerp
dtype: float16
base_model: {stack}
models:
  - model: {stack}
  - model: {other}
parameters: {{t: [0.2, 0.8]}}
"""


def other_of(folder: Path, llama: Path) -> Path:
    merged(sliced("passthrough", {llama: (0, 4)}, {llama: (2, 4)}), folder)
    return folder


def test_a_tree_gives_the_bits_of_its_steps_run_one_by_one(tmp_path: Path, llamas: Llamas) -> None:
    first, second, base = llamas
    other = other_of(tmp_path / "other", first)
    merged(BLEND.format(first=first, second=second, base=base), tmp_path / "blend")
    merged(STACK.format(blend=tmp_path / "blend", base=base), tmp_path / "stack")
    merged(FINAL.format(stack=tmp_path / "stack", other=other), tmp_path / "steps")
    tree = "---".join(
        [
            BLEND.format(first=first, second=second, base=base),
            STACK.format(blend="blend", base=base),
            FINAL.format(stack="stack", other=other),
        ]
    )
    merged(tree, tmp_path / "tree", threads=2)
    assert hashes(tmp_path / "tree", "*.safetensors") == hashes(tmp_path / "steps", "*.safetensors")
    assert (tmp_path / "tree" / "config.json").read_bytes() == (tmp_path / "steps" / "config.json").read_bytes()


def test_a_recipe_nested_in_place_is_the_document_of_that_name(llamas: Llamas) -> None:
    first, second, base = llamas
    inner = BLEND.format(first=first, second=second, base=base)
    outer = whole("linear", (Path("blend"), {"weight": 1}), (base, {"weight": 2}))
    in_place = {**outer, "models": [{**outer["models"][0], "model": yaml.safe_load(inner)}, outer["models"][1]]}
    by_name, nested = plan_recipe(f"{inner}---\n{yaml.safe_dump(outer)}"), plan_recipe(in_place)
    assert by_name.shards == nested.shards


def test_a_nested_merge_without_a_dtype_is_not_rounded_on_the_way(tmp_path: Path, llamas: Llamas) -> None:
    a, b, c = map(read_tensors, llamas)
    inner = whole("linear", (llamas[0], {"weight": 1}), (llamas[1], {"weight": 1}))
    recipe = whole("linear", (inner, {"weight": 1}), (llamas[2], {"weight": 1}), dtype="bfloat16")
    for name, tensor in merged(recipe, tmp_path / "out").items():
        exact = (0.5 * a[name].float() + 0.5 * b[name].float()) * 0.5 + 0.5 * c[name].float()
        assert torch.equal(tensor, exact.bfloat16()), name


def test_a_nested_merge_of_another_depth_counts_its_own_layers(llamas: Llamas) -> None:
    tall = sliced("passthrough", {llamas[0]: (0, 4)}, {llamas[1]: (0, 4)})
    row = [{"model": tall, "layer_range": [2, 7]}]
    plan = plan_recipe({"merge_method": "passthrough", "slices": [{"sources": row}]})
    sources = {t.info.name: (t.expr.parent, t.expr.tensor.name) for t in plan.tensors if "q_proj" in t.info.name}
    assert plan.config["num_hidden_layers"] == 5
    assert sources["model.layers.0.self_attn.q_proj.weight"] == (0, "model.layers.2.self_attn.q_proj.weight")
    assert sources["model.layers.4.self_attn.q_proj.weight"] == (1, "model.layers.2.self_attn.q_proj.weight")


def test_a_tree_whose_branches_meet_again_is_written_out_without_repetition(tmp_path: Path, llamas: Llamas) -> None:
    first, second, base = llamas
    documents = [BLEND.format(first=first, second=second, base=base)]
    for step, below in enumerate(["blend", *(f"step{number}" for number in range(11))]):
        outer = whole("slerp", Path(below), base, base_model=Path(below), parameters={"t": 0.5}, dtype="float32")
        mean = whole("linear", (outer, {"weight": 1}), (Path(below), {"weight": 1}), dtype="float32")  # type: ignore[arg-type]
        documents.append(yaml.safe_dump(mean | {"name": f"step{step}"}))
    plan = plan_recipe("---\n".join(documents))
    written = normalised_recipe(plan)
    assert written.count("dare_ties") == 1
    assert fingerprint(plan_recipe(written)) == fingerprint(plan)
    merged(written, tmp_path / "out")


def test_a_merge_that_a_tree_uses_twice_is_planned_once(llamas: Llamas) -> None:
    first, second, base = llamas
    blend = BLEND.format(first=first, second=second, base=base)
    outer = whole("slerp", Path("blend"), base, base_model=Path("blend"), parameters={"t": 0.5})
    final = whole("linear", (Path("outer"), {"weight": 1}), (Path("blend"), {"weight": 1}))
    plan = plan_recipe("---\n".join([blend, yaml.safe_dump(outer | {"name": "outer"}), yaml.safe_dump(final)]))
    head = next(tensor.expr for tensor in plan.tensors if tensor.info.name == "lm_head.weight")
    assert head.inputs[0].inputs[0] is head.inputs[1]
