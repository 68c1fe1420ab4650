from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.errors import PlanError, RecipeError, SourceError
from hubmerge.merge.pipeline import plan_recipe
from hubmerge.merge.plan import Plan
from tests.checkpoints import write_changed, write_llama, write_tensors
from tests.merge.recipes import sliced, whole

Llamas = tuple[Path, Path, Path]
HALF = {"weight": 0.5}


def problems_of(recipe: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        plan_recipe(recipe)
    return caught.value.problems


def fault_of(recipe: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        plan_recipe(recipe)
    return str(caught.value)


def dtypes_of(plan: Plan) -> dict[str, str]:
    return {tensor.info.name: tensor.info.dtype for tensor in plan.tensors}


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype)


def test_every_incompatibility_is_listed_at_once(tmp_path: Path, llamas: Llamas) -> None:
    other = write_changed(
        tmp_path / "other",
        llamas[1],
        {
            "model.norm.weight": None,
            **{f"model.layers.{layer}.mlp.up_proj.weight": ones(48, 16) for layer in range(4)},
            **{f"model.layers.{layer}.self_attn.q_proj.bias": ones(16) for layer in range(4)},
        },
    )
    with pytest.raises(PlanError) as caught:
        plan_recipe(whole("linear", (llamas[0], HALF), (other, HALF)))
    assert caught.value.problems == (
        f"model.layers.*.mlp.up_proj.weight (4 tensors): shapes differ: 32x16 in {llamas[0]}, 48x16 in {other}",
        f"model.layers.*.self_attn.q_proj.bias (4 tensors): missing in {llamas[0]}",
        f"model.norm.weight: missing in {other}",
    )
    assert str(caught.value) == "3 things in the recipe do not fit its models:\n" + "\n".join(
        f"  - {problem}" for problem in caught.value.problems
    )


def test_one_incompatibility_is_the_whole_message(tmp_path: Path, llamas: Llamas) -> None:
    other = write_changed(tmp_path / "other", llamas[1], {"model.norm.weight": None})
    with pytest.raises(PlanError) as caught:
        plan_recipe(whole("linear", (llamas[0], HALF), (other, HALF), (llamas[2], HALF)))
    assert str(caught.value) == f"model.norm.weight: missing in {other}"


def test_vocabularies_of_different_size_are_an_incompatibility(tmp_path: Path, llamas: Llamas) -> None:
    padded = write_llama(tmp_path / "padded", seed=5, layers=4, vocab=72)
    assert problems_of(whole("slerp", llamas[0], padded, base_model=llamas[0], parameters={"t": 0.5})) == (
        f"model.embed_tokens.weight: shapes differ: 64x16 in {llamas[0]}, 72x16 in {padded}",
        f"lm_head.weight: shapes differ: 64x16 in {llamas[0]}, 72x16 in {padded}",
    )


def test_only_so_many_incompatibilities_are_written_out(tmp_path: Path) -> None:
    first = write_tensors(tmp_path / "first", {f"part_{i}.weight": ones(2) for i in range(30)})
    second = write_tensors(tmp_path / "second", {f"part_{i}.weight": ones(3) for i in range(30)})
    problems = problems_of(whole("linear", (first, HALF), (second, HALF)))
    assert len(problems) == 21
    assert problems[-1] == "and 10 more of this kind"


def test_an_integer_tensor_against_a_float_one_is_an_incompatibility(tmp_path: Path) -> None:
    first = write_tensors(tmp_path / "first", {"steps": ones(2)})
    second = write_tensors(tmp_path / "second", {"steps": ones(2, dtype=torch.int64)})
    assert problems_of(whole("linear", (first, HALF), (second, HALF))) == (
        f"steps: dtypes do not fit together: F32 in {first}, I64 in {second}",
    )


def test_settings_that_no_tensor_can_be_merged_with_are_found_in_the_plan(llamas: Llamas) -> None:
    opposite = [{"filter": "down_proj", "value": -1}, {"value": 1}]
    recipe = whole("linear", (llamas[0], {"weight": 1}), (llamas[1], {"weight": opposite}))
    assert problems_of(recipe) == (
        "model.layers.*.mlp.down_proj.weight (4 tensors): "
        "the weights 1.0, -1.0 add up to 0, so normalize cannot divide by their sum",
    )


def test_tensors_that_no_filter_matches_are_found_in_the_plan(llamas: Llamas) -> None:
    recipe = whole("linear", (llamas[0], {"weight": [{"filter": "model.", "value": 1}]}))
    assert problems_of(recipe) == (
        "lm_head.weight: models[0]: no setting of weight matches this tensor, and linear has no default for it",
    )


def test_models_of_different_depth_are_refused_with_their_layers(tmp_path: Path, llamas: Llamas) -> None:
    short = write_llama(tmp_path / "short", seed=7, layers=2)
    message = fault_of(whole("linear", (llamas[0], HALF), (short, HALF)))
    assert message == f"models: the models give different numbers of layers: {llamas[0]} 4, {short} 2"


def test_nested_merges_of_one_name_and_different_depth_are_refused(tmp_path: Path, llamas: Llamas) -> None:
    short = write_llama(tmp_path / "short", seed=7, layers=2)
    nested = [whole("linear", (model, HALF)) for model in (llamas[0], short)]
    message = fault_of(whole("linear", (nested[0], HALF), (nested[1], HALF)))
    assert message == "models: the models give different numbers of layers: the linear merge 4, the linear merge 2"


@pytest.mark.parametrize("layers", [2, 6])
def test_a_base_of_another_depth_that_is_not_listed_is_refused(tmp_path: Path, llamas: Llamas, layers: int) -> None:
    base = write_llama(tmp_path / "base", seed=7, layers=layers)
    recipe = whole("ties", (llamas[0], HALF), (llamas[1], HALF), base_model=base)
    assert fault_of(recipe) == (f"models: the models give layers 0 to 3, but the base_model {base} has {layers} layers")


def test_an_unlisted_base_gives_the_layers_that_the_slice_takes(llamas: Llamas) -> None:
    first, second, base = llamas
    plan = plan_recipe(sliced("ties", {first: (1, 3), second: (1, 3)}, base_model=base, parameters=HALF))
    assert plan.layer_count == 2
    loaded = next(tensor.expr for tensor in plan.tensors if tensor.info.name.startswith("model.layers.0."))
    assert {operand.tensor.name.split(".")[2] for operand in loaded.inputs} == {"1"}


def test_an_unlisted_base_of_models_with_different_layers_has_to_be_listed(llamas: Llamas) -> None:
    first, second, base = llamas
    recipe = sliced("ties", {first: (0, 2), second: (1, 3)}, base_model=base, parameters=HALF)
    assert fault_of(recipe) == (
        "slices[0]: the models give different layers; list the base_model too, with a layer_range of its own"
    )


def test_a_base_without_layers_is_refused(tmp_path: Path, llamas: Llamas) -> None:
    base = write_tensors(tmp_path / "base", {"weight": ones(2)})
    recipe = whole("ties", (llamas[0], HALF), base_model=base)
    assert fault_of(recipe) == f"models: the models give layers 0 to 3, but the base_model {base} has 0 layers"


def test_layers_that_a_model_does_not_have_are_refused(llamas: Llamas) -> None:
    message = fault_of(sliced("passthrough", {llamas[0]: (0, 2)}, {llamas[1]: (2, 5)}))
    assert message == f"slices[1].sources[0]: layer_range [2, 5] goes beyond the 4 layers of {llamas[1]}"


def test_a_quantised_parent_is_refused_with_the_way_out(tmp_path: Path, llamas: Llamas) -> None:
    quantised = write_tensors(
        tmp_path / "fp8", {"model.norm.weight": ones(16).to(torch.float8_e4m3fn), "model.norm.weight_scale": ones(1)}
    )
    with pytest.raises(SourceError) as caught:
        plan_recipe(whole("linear", (llamas[0], HALF), (quantised, HALF)))
    assert str(caught.value).startswith(f"{quantised} is quantised: ")
    assert caught.value.hint is not None
    assert "dequantize()" in caught.value.hint


def test_a_checkpoint_without_tensors_is_nothing_to_merge(tmp_path: Path) -> None:
    empty = write_tensors(tmp_path / "empty", {})
    assert problems_of(whole("linear", (empty, HALF))) == ("the models hold no tensors",)


def test_layers_that_take_the_place_of_what_follows_the_layers_are_refused(tmp_path: Path) -> None:
    layers = {f"model.layers.{layer}.weight": ones(2) for layer in range(3)}
    model = write_tensors(tmp_path / "mtp", layers, {"num_hidden_layers": 2})
    assert problems_of(sliced("passthrough", {model: (0, 2)}, {model: (1, 2)})) == (
        "model.layers.*.weight: names both a layer and what follows the layers",
    )


@pytest.mark.parametrize(
    ("codes", "stated", "expected"),
    [
        ((torch.bfloat16, torch.bfloat16), {}, "BF16"),
        ((torch.float16, torch.float16), {}, "F16"),
        ((torch.bfloat16, torch.float16), {}, "F32"),
        ((torch.bfloat16, torch.float32), {}, "F32"),
        ((torch.float32, torch.float64), {}, "F64"),
        ((torch.float32, torch.float32), {"dtype": "bfloat16"}, "BF16"),
        ((torch.bfloat16, torch.bfloat16), {"dtype": "float32", "out_dtype": "float16"}, "F16"),
    ],
)
def test_the_result_has_the_stated_dtype_or_the_promotion_of_its_inputs(
    tmp_path: Path, codes: tuple[torch.dtype, ...], stated: dict[str, str], expected: str
) -> None:
    models = [write_tensors(tmp_path / str(i), {"weight": ones(2, dtype=code)}) for i, code in enumerate(codes)]
    plan = plan_recipe(whole("linear", *[(model, HALF) for model in models], **stated))
    assert dtypes_of(plan) == {"weight": expected}


def test_a_parent_that_is_only_copied_takes_the_stated_dtype(tmp_path: Path) -> None:
    model = write_tensors(tmp_path / "model", {"weight": ones(2), "steps": ones(2, dtype=torch.int32)})
    plan = plan_recipe(whole("passthrough", model, dtype="bfloat16"))
    assert dtypes_of(plan) == {"weight": "BF16", "steps": "I32"}


def test_what_just_the_base_has_is_carried_over_in_the_stated_dtype_and_noted(tmp_path: Path, llamas: Llamas) -> None:
    tower = {f"vision_tower.blocks.{i}.weight": ones(2) for i in range(2)}
    base = write_changed(tmp_path / "base", llamas[0], tower)
    plan = plan_recipe(whole("task_arithmetic", (llamas[1], HALF), (llamas[2], HALF), base_model=base, dtype="float16"))
    assert plan.notes == (
        f"vision_tower (2 layers, 2 tensors): carried over from {base}: {llamas[1]}, {llamas[2]} have none",
    )
    assert {dtypes_of(plan)[name] for name in tower} == {"F16"}


def test_what_is_odd_about_a_parent_s_files_is_noted_once(tmp_path: Path, llamas: Llamas) -> None:
    odd = write_changed(tmp_path / "odd", llamas[0], {})
    (odd / "model.safetensors.index.json").write_text("{}")
    assert plan_recipe(whole("passthrough", odd)).notes == (
        f"{odd} has model.safetensors and model.safetensors.index.json; the first is used, as transformers does",
    )


def test_what_just_another_model_has_is_left_out_and_noted(tmp_path: Path, llamas: Llamas) -> None:
    other = write_changed(tmp_path / "other", llamas[1], {"value_head.weight": ones(1, 16)})
    plan = plan_recipe(whole("linear", (llamas[0], HALF), (other, HALF)))
    assert plan.notes == (
        f"value_head.weight: left out: {llamas[0]}, which gives the result its shape, lacks what {other} has",
    )
    assert "value_head.weight" not in dtypes_of(plan)


def test_a_buffer_that_loaders_compute_may_be_missing_anywhere(tmp_path: Path, llamas: Llamas) -> None:
    buffers = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": ones(2) for layer in range(4)}
    old, older = (write_changed(tmp_path / str(i), llamas[i], buffers) for i in range(2))
    plan = plan_recipe(whole("linear", (old, HALF), (llamas[2], HALF), (older, HALF)))
    assert plan.notes == (
        f"model.layers.*.self_attn.rotary_emb.inv_freq (4 tensors): carried over from {old}: {llamas[2]} has none",
    )


def test_a_tied_model_beside_one_with_a_head_gives_its_embedding(tmp_path: Path, llamas: Llamas) -> None:
    tied = write_llama(tmp_path / "tied", seed=9, layers=4, tied=True)
    plan = plan_recipe(whole("linear", (tied, HALF), (llamas[0], HALF)))
    head = next(tensor for tensor in plan.tensors if tensor.info.name == "lm_head.weight")
    assert [load.tensor.name for load in head.expr.inputs] == ["model.embed_tokens.weight", "lm_head.weight"]


def test_the_bias_of_a_tied_head_is_not_an_embedding(tmp_path: Path) -> None:
    tied = write_llama(tmp_path / "tied", seed=9, tied=True)
    biased = write_changed(tmp_path / "biased", tied, {"lm_head.bias": ones(64)})
    assert problems_of(whole("linear", (biased, HALF), (tied, HALF))) == (f"lm_head.bias: missing in {tied}",)
    assert plan_recipe(whole("passthrough", biased)).config["tie_word_embeddings"] is True


def test_tensors_are_made_from_the_embedding_to_the_head(llamas: Llamas) -> None:
    names = [tensor.info.name for tensor in plan_recipe(whole("passthrough", llamas[0])).tensors]
    layers = [int(name.split(".")[2]) for name in names if ".layers." in name]
    assert names[0] == "model.embed_tokens.weight"
    assert layers == sorted(layers)
    assert set(names[-2:]) == {"model.norm.weight", "lm_head.weight"}


def test_what_precedes_the_layers_comes_from_the_first_slice_and_what_follows_from_the_last(llamas: Llamas) -> None:
    first, second, _ = llamas
    plan = plan_recipe(sliced("passthrough", {first: (0, 4)}, {second: (0, 4)}))
    parents = {tensor.info.name: tensor.expr.parent for tensor in plan.tensors if ".layers." not in tensor.info.name}
    assert parents == {"model.embed_tokens.weight": 0, "model.norm.weight": 1, "lm_head.weight": 1}


def test_the_same_layers_may_be_stacked_more_often_than_the_model_has_layers(llamas: Llamas) -> None:
    plan = plan_recipe(sliced("passthrough", *[{llamas[0]: (1, 4)} for _ in range(3)]))
    sources = {int(t.info.name.split(".")[2]): t.expr.tensor.name for t in plan.tensors if "q_proj" in t.info.name}
    assert [int(sources[layer].split(".")[2]) for layer in range(9)] == [1, 2, 3] * 3


def test_a_slice_may_merge_two_runs_of_layers_of_the_base(llamas: Llamas) -> None:
    rows = [{"model": str(llamas[0]), "layer_range": layers} for layers in ([0, 2], [2, 4])]
    recipe = {"merge_method": "slerp", "slices": [{"sources": rows}], "base_model": str(llamas[0])}
    plan = plan_recipe({**recipe, "parameters": {"t": 0.5}})
    merged = next(tensor.expr for tensor in plan.tensors if "layers.1" in tensor.info.name)
    assert [load.tensor.name.split(".")[2] for load in merged.inputs] == ["1", "3"]


def test_what_just_the_donor_has_is_carried_over_where_it_is_not_merged_itself(tmp_path: Path, llamas: Llamas) -> None:
    donor = write_changed(tmp_path / "donor", llamas[0], {"score.weight": ones(2, 16)})
    other = write_changed(tmp_path / "other", llamas[1], {"value_head.weight": ones(1, 16)})
    plan = plan_recipe(whole("linear", (other, HALF), (llamas[2], HALF), base_model=donor))
    assert plan.notes == (
        f"value_head.weight: left out: {donor}, which gives the result its shape, lacks what {other} has",
        f"score.weight: carried over from {donor}: {other}, {llamas[2]} have none",
    )
    assert dtypes_of(plan).keys() - dtypes_of(plan_recipe(whole("passthrough", llamas[0]))) == {"score.weight"}


def test_an_untied_donor_gets_a_head_from_tied_models(tmp_path: Path, llamas: Llamas) -> None:
    tied = [write_llama(tmp_path / str(seed), seed=seed, layers=4, tied=True) for seed in (8, 9)]
    plan = plan_recipe(whole("linear", *[(model, HALF) for model in tied], base_model=llamas[0]))
    head = next(tensor.expr for tensor in plan.tensors if tensor.info.name == "lm_head.weight")
    assert [load.tensor.name for load in head.inputs] == ["model.embed_tokens.weight"] * 2


def test_what_only_the_first_layer_has_is_in_the_first_layer_of_a_stack(tmp_path: Path) -> None:
    tensors = {f"model.layers.{layer}.up.weight": ones(2) for layer in range(3)}
    model = write_tensors(tmp_path / "model", {**tensors, "model.layers.0.bias_table": ones(2)})
    plan = plan_recipe(sliced("passthrough", {model: (1, 3)}, {model: (0, 3)}))
    assert [name for name in dtypes_of(plan) if "bias_table" in name] == ["model.layers.0.bias_table"]
    assert plan.notes == (
        f"model.layers.*.bias_table: the first layer of the result has one for all; that of {model} is left out",
    )
