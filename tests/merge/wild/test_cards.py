"""Recipes as model cards show them, written for these tests: what mergekit accepts gives what its formulas say."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.merge.recipe import load_recipe
from tests.merge.recipe.recipes import SLERP, TIES, changed, refusal, warnings
from tests.merge.wild.agreement import assert_agrees
from tests.merge.wild.stand_ins import StandIns

RECIPES = {
    "parameters of a slice go before those of the recipe, where their filters match": """\
slices:
  - sources:
      - {model: org/one, layer_range: [0, 3]}
      - {model: org/two, layer_range: [1, 4]}
    parameters:
      t:
        - filter: q_proj
          value: [0.1, 0.9]
merge_method: slerp
base_model: org/one
parameters:
  t: ["0.3", 6e-1]
dtype: float32
""",
    "filters without a default fall to the recipe's value": """\
models:
  - model: org/one
    parameters: {weight: [{filter: mlp, value: [1, 2, 3]}]}
  - model: org/two
    parameters: {weight: [{filter: self_attn, value: 2}, {filter: "*", value: 0.5}]}
merge_method: linear
parameters: {weight: 1}
dtype: bfloat16
""",
    "a filter is text that a name contains, not a pattern": """\
models: [{model: org/one}, {model: org/two}]
merge_method: slerp
base_model: org/two
parameters:
  t:
    - {filter: .*mlp.*, value: 0.9}
    - {filter: layers.1., value: 0.2}
    - {filter: lm_head, value: [0.25, 0.75]}
    - value: [0.5, 0.7]
dtype: float32
""",
    "filters of all models see the output's name, those of one see its own": """\
slices:
  - sources:
      - {model: org/one, layer_range: [0, 2], parameters: {weight: [{filter: layers.0., value: 5}, {value: 1}]}}
      - {model: org/two, layer_range: [0, 2], parameters: {weight: 1}}
  - sources:
      - {model: org/one, layer_range: [0, 2], parameters: {weight: [{filter: layers.0., value: 7}, {value: 2}]}}
      - {model: org/two, layer_range: [2, 4], parameters: {weight: 1}}
merge_method: linear
parameters: {normalize: [{filter: layers.2., value: false}]}
dtype: float32
""",
    "anchors, merge keys and a key that only holds them": """\
x-tuned: &tuned {weight: 0.5, density: 0.5}
models:
  - model: org/one
    parameters: *tuned
  - model: org/two
    parameters: {<<: *tuned, weight: 0.25}
merge_method: ties
base_model: org/base
dtype: float32
""",
    "a slice of the base alone is the base": """\
slices:
  - sources:
      - {model: org/base, layer_range: [0, 2]}
  - sources:
      - {model: org/base, layer_range: [2, 4]}
      - {model: org/one, layer_range: [2, 4], parameters: {weight: 0.4, density: 0.3}}
merge_method: ties
base_model: org/base
dtype: float32
""",
    "a merge of the base alone is the base": """\
models: [{model: org/base, parameters: {weight: 0.4}}]
merge_method: task_arithmetic
base_model: org/base
dtype: float16
""",
    "probabilities of della may reach zero": """\
models:
  - {model: org/one, parameters: {weight: 0.6, density: 0.25, epsilon: 0.25}}
merge_method: della
base_model: org/base
dtype: float32
""",
    "layers stacked with some outputs silenced": """\
slices:
  - sources: [{model: org/one, layer_range: ["0", 2.0]}]
  - sources:
      - model: org/one
        layer_range: [1, 3]
        parameters: {scale: [{filter: o_proj, value: 0.0}, {filter: down_proj, value: 0.0}, {value: 1.0}]}
merge_method: passthrough
dtype: bfloat16
""",
    "a tree of documents": """\
name: first
models: [{model: org/one}, {model: org/two}]
merge_method: slerp
base_model: org/one
parameters: {t: [0.2, 0.8]}
dtype: bfloat16
---
models:
  - {model: first, parameters: {weight: 0.5, density: [0.9, 0.4]}}
  - {model: org/three, parameters: {weight: 0.5, density: 0.6}}
merge_method: breadcrumbs_ties
base_model: org/base
parameters: {gamma: 0.05, rescale: true, normalize: true}
dtype: float32
""",
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_gives_what_its_formulas_say(recipe: str, stand_ins: StandIns, tmp_path: Path) -> None:
    assert_agrees(load_recipe(recipe), stand_ins, tmp_path / "out")


def test_line_ends_of_windows_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    path.write_bytes(TIES.replace("\n", "\r\n").encode("utf-8-sig"))
    assert load_recipe(path) == load_recipe(TIES)


@pytest.mark.parametrize(("word", "flag"), [("'no'", False), ("'Off'", False), ("yes", True), ("'y'", True)])
def test_yes_and_no_are_flags(word: str, flag: bool) -> None:
    stated = load_recipe(changed(TIES, "normalize: true", f"normalize: {word}"))
    assert stated.parameters == load_recipe(changed(TIES, "true", str(flag).lower())).parameters


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("embed_slerp: true", "nothing reads it"),
        ("trust_remote_code: true", "it is an option of mergekit's command line"),
        ("output_dir: ./merged", "where a merge goes is said on the command line"),
        ("license: apache-2.0", "it belongs in the model card"),
    ],
)
def test_a_key_of_another_place_has_no_effect_and_is_told_so(line: str, place: str) -> None:
    key = line.partition(":")[0]
    assert warnings(f"{line}\n{SLERP}") == (f"{key} (line 1): has no effect here; {place}",)


@pytest.mark.parametrize("line", ["dtype: float16", "random_seed: 4", "tokenizer_source: base"])
def test_a_key_of_the_recipe_that_slipped_under_parameters_has_no_effect(line: str) -> None:
    key = line.partition(":")[0]
    warning = f"parameters.{key} (line 8): has no effect here; it belongs at the top level"
    assert warnings(changed(SLERP, "  t: 0.5\n", f"  t: 0.5\n  {line}\n")) == (warning,)


def test_an_empty_chat_template_is_none() -> None:
    assert load_recipe(f"{SLERP}chat_template: ''\n").chat_template is None


def test_a_filter_is_text() -> None:
    recipe = changed(SLERP, "t: 0.5", "t: [{filter: [mlp, self_attn], value: 1}, {value: 0}]")
    assert refusal(recipe) == "parameters.t[0].filter (line 7): must be text, not a list"


def test_fences_of_a_model_card_are_named() -> None:
    problem = "line 1: not YAML: the recipe stands in a fence of Markdown; leave out the lines with backticks"
    assert refusal(f"```yaml\n{SLERP}```\n") == problem
