"""Recipes of mixtures of experts: what they say, and what is refused."""

from __future__ import annotations

import pytest

from hubmerge.errors import RecipeError
from hubmerge.merge.recipe import Expert, Recipe, load_recipe
from hubmerge.weights.reference import ModelRef

PLAIN = """\
base_model: org/base
experts:
  - source_model: org/one
    positive_prompts: ["sums ", 12]
    negative_prompts: []
  - source_model: org/two
    positive_prompts: [code]
    noise_scale: 1e-2
    residual_scale: 0.5
"""


def refusal(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(text)
    return str(caught.value)


def test_what_a_mixture_says() -> None:
    recipe = load_recipe(
        f"{PLAIN}shared_experts: [{{source_model: org/base}}]\nexperts_per_token: 1\ndtype: bfloat16\n"
    )
    mixture = recipe.mixture
    assert mixture is not None
    assert (recipe.method, recipe.base_model, recipe.dtype) == ("moe", ModelRef("org/base"), "bfloat16")
    assert mixture.experts == (
        Expert(ModelRef("org/one"), positive_prompts=("sums ", "12")),
        Expert(ModelRef("org/two"), positive_prompts=("code",), noise_scale=0.01, residual_scale=0.5),
    )
    assert mixture.shared_experts == (Expert(ModelRef("org/base")),)
    assert (mixture.gate_mode, mixture.experts_per_token, mixture.architecture) == ("hidden", 1, None)
    assert recipe.warnings == ()


@pytest.mark.parametrize("extra", ["merge_method: moe\n", "gate_mode: random\n", "", "seed: 7\n"])
def test_a_mixture_need_not_say_that_it_is_one(extra: str) -> None:
    assert load_recipe(PLAIN + extra).mixture is not None


def test_an_expert_may_be_a_merge_or_have_an_adapter() -> None:
    text = """\
base_model: org/base
experts:
  - source_model: {merge_method: linear, models: [{model: org/a, parameters: {weight: 1}}]}
  - source_model: org/base+org/lora
"""
    mixture = load_recipe(text).mixture
    assert mixture is not None
    first, second = (expert.model for expert in mixture.experts)
    assert isinstance(first, Recipe)
    assert str(second) == "org/base+org/lora"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base_model: org/base\nexperts: []\n", "experts (line 2): the list is empty"),
        ("merge_method: moe\nbase_model: org/base\n", "recipe (line 1): a mixture of experts needs its experts"),
        ("experts:\n  - source_model: a/b\n", "recipe (line 1): a mixture of experts needs its base_model"),
        ("base_model: a/b\nexperts:\n  - {}\n", "experts[0] (line 3): an expert needs its source_model"),
        (
            f"{PLAIN}gate_mode: hiden\n",
            "gate_mode (line 10): must be one of hidden, hidden_last, hidden_avg, cheap_embed, random, uniform_random, "
            "not hiden; did you mean hidden?",
        ),
        (f"{PLAIN}gate_modes: hidden\n", "gate_modes (line 10): unknown key; did you mean gate_mode?"),
        (
            "base_model: a/b\nexperts:\n  - source_model: a/b\n    positive_prompt: [x]\n",
            "experts[0].positive_prompt (line 4): unknown key; did you mean positive_prompts?",
        ),
        (
            "base_model: a/b\nexperts:\n  - source_model: a/b\n    positive_prompts: x\n",
            "experts[0].positive_prompts (line 4): must be a list, not text",
        ),
        (
            "base_model: a/b\nexperts:\n  - source_model: a/b\n    noise_scale: -1\n",
            "experts[0].noise_scale (line 4): must not be negative, and is -1",
        ),
        (f"{PLAIN}experts_per_token: 0\n", "experts_per_token (line 10): must be at least 1, not 0"),
        (f"{PLAIN}merge_method: ties\n", "merge_method (line 10): experts belong to merge_method: moe, not to ties"),
        (
            f"{PLAIN}models: [{{model: org/a}}]\n",
            "models (line 10): a mixture of experts takes experts, and nothing else says what goes into it",
        ),
        (
            f"merge_method: linear\nmodels:\n  - model: mix\n    parameters: {{weight: 1}}\n---\nname: mix\n{PLAIN}",
            "models[0].model (line 3): a mixture whose routers come from prompts cannot stand for a model; "
            "make it first, and write its name here",
        ),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    assert refusal(text) == message


def test_what_has_no_effect_is_said() -> None:
    recipe = load_recipe(f"{PLAIN}gate_mode: random\ntokenizer_source: union\n")
    assert recipe.warnings == (
        "tokenizer_source (line 11): has no effect in a mixture of experts",
        "experts[0] (line 3): its prompts have no effect where gate_mode is random",
        "experts[1] (line 6): its prompts have no effect where gate_mode is random",
    )
