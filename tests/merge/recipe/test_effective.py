from __future__ import annotations

import pytest

from hubmerge.errors import RecipeError
from hubmerge.merge.methods.method import Settings
from hubmerge.merge.recipe import Recipe, load_recipe, settings_for
from tests.merge.recipe.recipes import SLERP, TIES, changed, ties

UP = "model.layers.3.mlp.up_proj.weight"
QUERY = "model.layers.3.self_attn.q_proj.weight"


def settings(recipe: Recipe, name: str = UP, *, depth: float = 0.5, inputs: tuple[str, ...] | None = None) -> Settings:
    """The settings of the first slice, whose base is an operand if it has one."""
    slice_ = recipe.slices[0]
    sources = [source for source in slice_.sources if source.model != recipe.base_model]
    names = inputs or (name,) * len(sources)
    return settings_for(recipe, slice_, sources=sources, input_names=names, output_name=name, depth=depth)


def test_every_parameter_has_a_value_of_its_kind() -> None:
    found = settings(load_recipe(TIES))
    assert found.shared == {"lambda": 1.0, "normalize": True, "rescale": False, "int8_mask": False}
    assert found.inputs == ({"weight": 0.5, "density": 0.6}, {"weight": 0.3, "density": 1.0})


def test_the_nearest_setting_wins() -> None:
    recipe = load_recipe("""\
merge_method: dare_ties
base_model: a/base
parameters: {weight: 1, density: 1, lambda: 1, rescale: false}
modules:
  text:
    parameters: {weight: 2, density: 2, lambda: 2}
    slices:
      - parameters: {weight: 3, density: 3}
        sources:
          - {model: a/x, layer_range: [0, 2], parameters: {weight: 4}}
          - {model: a/y, layer_range: [0, 2]}
""")
    assert recipe.modules is not None
    module = recipe.modules["text"]
    slice_ = module.slices[0]
    found = settings_for(module, slice_, sources=slice_.sources, input_names=[UP, UP], output_name=UP, depth=0)
    assert found.inputs == ({"weight": 4.0, "density": 3.0}, {"weight": 3.0, "density": 3.0})
    assert (found.shared["lambda"], found.shared["rescale"]) == (2.0, False)


def test_a_setting_whose_filters_do_not_match_is_passed_over() -> None:
    recipe = ties("density: [{filter: self_attn, value: 0.1}]")
    assert [settings(recipe, name).inputs[0]["density"] for name in (QUERY, UP)] == [0.1, 1.0]
    with_general = load_recipe(changed(recipe.text, "  normalize: true", "  normalize: true\n  density: 0.9"))
    assert [settings(with_general, name).inputs[0]["density"] for name in (QUERY, UP)] == [0.1, 0.9]


def test_filters_of_a_model_see_its_own_name_and_shared_ones_the_result() -> None:
    recipe = load_recipe(
        changed(
            changed(TIES, "density: 0.6", "density: [{filter: layers.7, value: 0.1}, {value: 0.2}]"),
            "normalize: true",
            "normalize: [{filter: layers.3, value: false}]",
        )
    )
    found = settings(recipe, UP, inputs=("model.layers.7.mlp.up_proj.weight", UP))
    assert found.inputs[0]["density"] == 0.1
    assert found.shared["normalize"] is False


def test_a_gradient_follows_the_depth() -> None:
    recipe = load_recipe(changed(SLERP, "0.5", "[0, 0.5, 0.3, 0.7, 1]"))
    assert [settings(recipe, depth=depth).shared["t"] for depth in (0, 0.125, 1)] == [0.0, 0.25, 1.0]


def test_flags_select_and_whole_numbers_are_cut() -> None:
    karcher = "merge_method: karcher\nmodels: [{model: a/x}]\nparameters: {max_iter: [1, 4]}\n"
    assert settings(load_recipe(karcher), depth=0.5).shared["max_iter"] == 2
    recipe = load_recipe(changed(TIES, "normalize: true", "normalize: [true, false]"))
    assert [settings(recipe, depth=depth).shared["normalize"] for depth in (0, 0.9, 1)] == [True, True, False]


def test_a_required_parameter_without_a_matching_filter_is_an_error_of_its_model() -> None:
    recipe = load_recipe(changed(TIES, "weight: 0.3", "weight: [{filter: mlp, value: 0.3}]"))
    assert settings(recipe, UP).inputs[1]["weight"] == 0.3
    with pytest.raises(RecipeError) as caught:
        settings(recipe, QUERY)
    problem = "no setting of weight matches this tensor, and ties has no default for it"
    assert str(caught.value) == f"models[2] (line 9): {problem}"


def test_a_required_shared_parameter_without_a_matching_filter_is_an_error_of_the_slice() -> None:
    recipe = load_recipe(changed(SLERP, "t: 0.5", "t: [{filter: mlp, value: 0.3}]"))
    with pytest.raises(RecipeError) as caught:
        settings(recipe, QUERY)
    problem = "no setting of t matches this tensor, and slerp has no default for it"
    assert str(caught.value) == f"models (line 3): {problem}"
