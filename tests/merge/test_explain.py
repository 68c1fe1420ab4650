from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.merge.explain import TensorGroup, parent_role, setting_text, tensor_groups
from hubmerge.merge.pipeline import plan_recipe
from hubmerge.merge.recipe import load_recipe
from hubmerge.merge.settings import Case, Constant, Filtered, Gradient, Setting
from hubmerge.weights.reference import parse_reference
from tests.checkpoints import write_changed, write_llama
from tests.merge.recipes import sliced, whole

Llamas = tuple[Path, Path, Path]


def groups_of(recipe: dict[str, Any]) -> tuple[TensorGroup, ...]:
    return tensor_groups(plan_recipe(recipe))


def role_of(model: Path, recipe: dict[str, Any]) -> str:
    return parent_role(load_recipe(recipe), parse_reference(str(model)))


def test_every_tensor_is_in_exactly_one_group(tmp_path: Path, llamas: Llamas) -> None:
    t = [{"filter": "mlp", "value": [0, 1]}, {"value": 0.5}]
    groups = groups_of(whole("slerp", llamas[0], llamas[1], base_model=llamas[0], parameters={"t": t}))
    assert sum(group.count for group in groups) == 39
    assert [(group.count, group.made_by, group.parameters) for group in groups] == [
        (27, "slerp", "t 0.5"),
        (12, "slerp", "t 0 → 0.3333 → 0.6667 → 1"),
    ]
    assert groups[1].names == (
        "model.layers.*.mlp.down_proj.weight",
        "model.layers.*.mlp.gate_proj.weight",
        "model.layers.*.mlp.up_proj.weight",
    )


def test_values_of_each_model_stand_side_by_side(llamas: Llamas) -> None:
    recipe = whole("linear", (llamas[0], {"weight": 0.25}), (llamas[1], {"weight": 1}))
    assert [group.parameters for group in groups_of(recipe)] == ["weight 0.25 | 1, normalize true"]


def test_slices_may_have_different_numbers_of_models(llamas: Llamas) -> None:
    first, second, third = llamas
    recipe = sliced(
        "linear",
        {first: (0, 2), second: (0, 2), third: (0, 2)},
        {first: (2, 4), second: (2, 4)},
        parameters={"weight": 1},
    )
    assert sum(group.count for group in groups_of(recipe)) == 39


def test_copies_nested_merges_and_tensors_without_arithmetic_are_told_apart(tmp_path: Path, llamas: Llamas) -> None:
    steps = {"steps": torch.ones(2, dtype=torch.int64)}
    first, second = (write_changed(tmp_path / str(i), llamas[i], steps) for i in range(2))
    inner = whole("linear", (first, {"weight": 1}), (second, {"weight": 1}))
    outer = whole("slerp", inner, first, base_model=first, parameters={"t": 0.1})
    assert {group.made_by for group in groups_of(outer)} == {"slerp(linear)", "identical in all"}
    assert {(group.made_by, group.parameters) for group in groups_of(whole("passthrough", first))} == {("copy", "")}


def test_a_long_series_is_shown_by_five_of_its_values(tmp_path: Path) -> None:
    tall = write_llama(tmp_path / "tall", seed=3, layers=9, tokenizer=False)
    groups = groups_of(whole("passthrough", (tall, {"scale": [1, 9]}), dtype="float32"))
    assert groups[-1].parameters == "scale 1 → 3 → 5 → 7 → 9"


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (Constant(0.123456), "0.1235"),
        (Constant(True), "true"),
        (Gradient((0.0, 0.5, 1)), "[0, 0.5, 1]"),
        (Filtered((Case("mlp", Constant(0.5)), Case(None, Gradient((1, 2))))), "mlp: 0.5, else: [1, 2]"),
    ],
)
def test_settings_read_as_in_a_recipe(setting: Setting, text: str) -> None:
    assert setting_text(setting) == text


def test_a_parent_is_the_base_or_has_its_weight(llamas: Llamas) -> None:
    first, second, third = llamas
    recipe = whole(
        "ties", (first, {"weight": 0.36, "density": 0.65}), second, base_model=third, parameters={"weight": 1}
    )
    assert role_of(first, recipe) == "weight 0.36, density 0.65"
    assert role_of(second, recipe) == "input"
    assert role_of(third, recipe) == "base model"


def test_a_parent_that_gives_layers_says_which(llamas: Llamas) -> None:
    recipe = sliced("passthrough", {llamas[0]: (0, 3)}, {llamas[1]: (1, 4)}, {llamas[0]: (2, 4)})
    assert role_of(llamas[0], recipe) == "layers 0-3; layers 2-4"


def test_a_parent_of_a_nested_merge_names_that_merge(llamas: Llamas) -> None:
    first, second, third = llamas
    inner = whole("linear", (first, {"weight": 0.25}), (second, {"weight": 0.75}), name="blend")
    outer = whole("ties", (third, {"weight": 1}), base_model=inner)
    assert role_of(first, outer) == "in blend: weight 0.25"
    assert role_of(third, outer) == "weight 1"


def test_the_base_of_one_slice_is_a_base_model(llamas: Llamas) -> None:
    recipe = sliced("slerp", {llamas[0]: (0, 4), llamas[1]: (0, 4)}, parameters={"t": 0.5})
    recipe["slices"][0]["base_model"] = str(llamas[1])
    assert role_of(llamas[1], recipe) == "base model; layers 0-4"
