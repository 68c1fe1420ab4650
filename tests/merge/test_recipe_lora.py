"""An adapter laid on what a recipe makes, and the random last rounding: both before anything is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hubmerge.errors import PlanError, RecipeError, SourceError
from hubmerge.merge.dither import dithered
from hubmerge.merge.explain import parent_role, tensor_groups
from hubmerge.merge.methods.masks import mask_key
from hubmerge.merge.methods.method import Block
from hubmerge.merge.normalise import normalised_recipe
from hubmerge.merge.pipeline import plan_recipe
from hubmerge.merge.recipe import load_recipe
from hubmerge.weights.reference import ModelRef
from tests.adapters import ADAPTER_FILE, load_file, write_adapter
from tests.checkpoints import read_tensors, write_llama
from tests.merge.merging import hashes, merged

KEY = mask_key(0, "w", -1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two Llamas in bf16 and an adapter whose change is a thousandth of their weights."""
    folder = tmp_path_factory.mktemp("recipe-lora")
    first, second = (write_llama(folder / name, seed=seed, dtype=torch.bfloat16) for seed, name in enumerate("ab"))
    adapter = write_adapter(folder / "adapter", first, r=2, target_modules="all-linear")
    factors = load_file(adapter / ADAPTER_FILE)
    save_file({name: tensor * 0.02 for name, tensor in factors.items()}, adapter / ADAPTER_FILE)
    return first, second, adapter


def linear(models: tuple[Path, Path, Path], **others: object) -> dict[str, object]:
    entries = [{"model": str(model), "parameters": {"weight": 1.0}} for model in models[:2]]
    return {"merge_method": "linear", "models": entries, **others}


def errors(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    return sum(float((found[name].double() - exact[name].double()).square().sum()) for name in exact)


def test_adapter_in_the_merge_is_nearer_to_the_exact_sum_than_after_a_rounding(
    models: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    exact = merged(linear(models, lora=str(models[2]), dtype="float32"), tmp_path / "exact")
    once = merged(linear(models, lora=str(models[2]), dtype="bfloat16"), tmp_path / "once")
    merged(linear(models, dtype="bfloat16"), tmp_path / "rounded")
    on_top = {"merge_method": "passthrough", "models": [{"model": f"{tmp_path / 'rounded'}+{models[2]}"}]}
    twice = merged(on_top, tmp_path / "twice")
    assert errors(once, exact) < 0.9 * errors(twice, exact)


def test_adapter_on_a_recipe_adds_what_peft_would(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    plain = merged(linear(models, dtype="float32"), tmp_path / "plain")
    tuned = merged(linear(models, lora=str(models[2]), dtype="float32"), tmp_path / "tuned")
    factors = load_file(models[2] / ADAPTER_FILE)
    name = "model.layers.0.self_attn.q_proj"
    a, b = (factors[f"base_model.model.{name}.lora_{factor}.weight"] for factor in "AB")
    change = tuned[f"{name}.weight"] - plain[f"{name}.weight"]
    torch.testing.assert_close(change, (b @ a) * (8 / 2), rtol=1e-3, atol=1e-6)
    assert torch.equal(tuned["model.embed_tokens.weight"], plain["model.embed_tokens.weight"])


def test_adapter_on_an_fp64_recipe_is_added_in_fp64(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    plain = merged(linear(models, dtype="float64"), tmp_path / "plain")
    tuned = merged(linear(models, lora=str(models[2]), dtype="float64"), tmp_path / "tuned")
    factors = load_file(models[2] / ADAPTER_FILE)
    name = "model.layers.0.self_attn.q_proj"
    a, b = (factors[f"base_model.model.{name}.lora_{factor}.weight"].double() for factor in "AB")
    expected = plain[f"{name}.weight"] + (b @ a) * (8 / 2)
    torch.testing.assert_close(tuned[f"{name}.weight"], expected, rtol=1e-14, atol=1e-14)


def test_adapter_on_a_nested_recipe_is_part_of_that_one(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    inner = linear(models, lora=str(models[2]), dtype="float32")
    outer = {"merge_method": "passthrough", "models": [{"model": inner}]}
    assert hashes(tmp_path / "one", "*.safetensors") == {}
    one = merged(outer, tmp_path / "one")
    other = merged(inner, tmp_path / "other")
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_plan_tells_of_the_adapter(models: tuple[Path, Path, Path]) -> None:
    plan = plan_recipe(linear(models, lora=str(models[2]), rounding="stochastic"))
    assert [parent.is_adapter for parent in plan.parents] == [False, False, True]
    assert parent_role(plan.recipe, ModelRef(str(models[2]))) == "LoRA on the merge"
    assert "linear + LoRA, rounded at random" in [group.made_by for group in tensor_groups(plan)]
    again = load_recipe(normalised_recipe(plan))
    assert (again.lora, again.rounding) == (ModelRef(str(models[2])), "stochastic")


def test_adapter_that_does_not_fit_is_a_problem_of_the_plan(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    wider = write_llama(tmp_path / "wider", seed=1, layers=6)
    adapter = write_adapter(tmp_path / "adapter", wider, r=2, target_modules=["q_proj"])
    with pytest.raises(PlanError) as error:
        plan_recipe(linear(models, lora=str(adapter)))
    assert "fits no tensor of the linear merge" in str(error.value)


def test_adapter_that_is_not_there_is_said(models: tuple[Path, Path, Path]) -> None:
    with pytest.raises(SourceError):
        plan_recipe(linear(models, lora="./nothing-here"))


def test_rounding_is_one_of_two() -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("merge_method: passthrough\nmodels: [{model: a/b}]\nrounding: stochastc\n")
    assert str(error.value) == (
        "rounding (line 3): must be nearest or stochastic, not stochastc; did you mean stochastic?"
    )


def test_random_rounding_is_the_same_for_any_number_of_threads(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    recipe = linear(models, rounding="stochastic", dtype="bfloat16")
    merged(recipe, tmp_path / "one", threads=1)
    merged(recipe, tmp_path / "three", threads=3)
    merged({**recipe, "seed": 1}, tmp_path / "other")
    one, three, other = (hashes(tmp_path / name, "*.safetensors") for name in ("one", "three", "other"))
    assert one == three
    assert one != other


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_random_rounding_is_right_on_average_and_goes_to_neighbours(dtype: torch.dtype) -> None:
    exact = torch.full((200_000,), 1.0 + 0.3 * torch.finfo(dtype).eps)
    found = dithered(exact, dtype, Block(0, 200_000, 1000), key=KEY)
    assert set(found.double().tolist()) == {1.0, 1.0 + torch.finfo(dtype).eps}
    assert float(found.double().mean() - exact.double().mean()) == pytest.approx(0, abs=0.01 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_random_rounding_keeps_what_the_dtype_can_say(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, 6.1035e-05, torch.finfo(dtype).max]).to(dtype)
    found = dithered(values.float(), dtype, Block(0, 8, 8), key=KEY)
    assert torch.equal(found, values)
    assert dithered(torch.tensor([float("nan")]), dtype, Block(0, 1, 1), key=KEY).isnan().all()


def test_random_rounding_of_a_merge_is_off_by_less_than_a_step(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    exact = merged(linear(models, dtype="float32"), tmp_path / "exact")
    merged(linear(models, rounding="stochastic", dtype="bfloat16"), tmp_path / "random")
    for name, tensor in read_tensors(tmp_path / "random").items():
        step = exact[name].abs() * torch.finfo(torch.bfloat16).eps + 1e-30
        assert ((tensor.float() - exact[name]).abs() <= step).all()
