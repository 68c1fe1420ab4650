"""What the plan of a mixture finds before a weight is read."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hubmerge.errors import PlanError
from hubmerge.merge.explain import tensor_groups
from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.pipeline import plan_recipe
from tests.checkpoints import read_tensors, write_changed, write_llama, write_tokenizer
from tests.merge.moe.experts import PROMPTS, mixture

Dense = Mapping[str, tuple[Path, Path]]


def problems(recipe: Any) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        plan_recipe(recipe)
    return caught.value.problems


def test_everything_that_is_wrong_is_said_at_once(dense: Dense, tmp_path: Path) -> None:
    one, _ = dense["llama"]
    wide = write_llama(tmp_path / "wide", seed=3, hidden=32, layers=3)
    short = write_llama(tmp_path / "short", seed=3, layers=2)
    recipe = mixture(one, wide, short, gate_mode="hidden", prompts=[{"positive_prompts": ["t4"]}], experts_per_token=3)
    assert problems(recipe) == (
        "recipe: experts_per_token is 3, and there are 2 experts",
        "experts[1]: gate_mode hidden needs its positive_prompts",
        f"experts[1]: {short} has 2 layers, and the base has 3",
        f"model.layers.*.mlp.gate_proj.weight (3 tensors): shapes differ: 32x16 in {one}, 64x32 in {wide}",
        f"model.layers.*.mlp.up_proj.weight (3 tensors): shapes differ: 32x16 in {one}, 64x32 in {wide}",
        f"model.layers.*.mlp.down_proj.weight (3 tensors): shapes differ: 16x32 in {one}, 32x64 in {wide}",
        f"model.layers.*.mlp.gate_proj.weight: missing in {short}",
        f"model.layers.*.mlp.up_proj.weight: missing in {short}",
        f"model.layers.*.mlp.down_proj.weight: missing in {short}",
    )


def test_models_of_another_kind_are_refused(dense: Dense) -> None:
    llama, qwen = dense["llama"][0], dense["qwen3"][0]
    assert problems(mixture(llama, llama, qwen)) == (
        f"experts[1]: {qwen} is a qwen3 model, and the base is a llama model",
    )


@pytest.mark.parametrize(
    ("kind", "top", "sentence"),
    [
        (
            "llama",
            {"architecture": "deepseek"},
            "hubmerge makes no mixture called deepseek; it makes mixtral of mistral or llama, "
            "qwen of qwen2 or mistral or llama, qwen3 of qwen3",
        ),
        (
            "qwen3",
            {"architecture": "mixtral"},
            "no mixture can be made of qwen3 models; hubmerge makes mixtral of mistral or llama, "
            "qwen of qwen2 or mistral or llama, qwen3 of qwen3",
        ),
        ("qwen2", {}, "the recipe has 0 shared experts, but Qwen2MoeForCausalLM has 1"),
    ],
)
def test_an_architecture_that_is_not_made_is_named(dense: Dense, kind: str, top: dict[str, Any], sentence: str) -> None:
    one, two = dense[kind]
    assert problems(mixture(one, one, two, **top)) == (f"recipe: {sentence}",)


def test_a_tensor_that_the_result_cannot_have_is_no_accident(dense: Dense, tmp_path: Path) -> None:
    one, two = dense["llama"]
    bias = read_tensors(one)["model.norm.weight"]
    odd = write_changed(tmp_path / "odd", one, {"model.layers.0.self_attn.q_proj.bias": bias})
    assert problems(mixture(odd, one, two)) == (
        f"model.layers.*.self_attn.q_proj.bias: {odd} has it, and MixtralForCausalLM does not",
    )


def test_the_same_prompts_for_all_are_refused(dense: Dense) -> None:
    one, two = dense["llama"]
    recipe = mixture(one, one, two, prompts=[PROMPTS[1], PROMPTS[1]], gate_mode="cheap_embed")
    assert problems(recipe) == (
        "recipe: all experts have the same prompts, so a router from them could not tell them apart",
    )


def test_what_is_worth_knowing_is_noted(dense: Dense, tmp_path: Path) -> None:
    one, _ = dense["mistral"]
    foreign = write_changed(tmp_path / "foreign", one, {})
    write_tokenizer(foreign, ["<unk>", "<s>", "</s>", "<pad>", *(f"w{n}" for n in range(60))])
    assert plan_recipe(mixture(one, foreign, foreign, foreign)).notes == (
        "recipe: 3 experts are no power of two, which llama.cpp cannot run",
        "experts: all experts are the same model, so nothing is gained until the result is trained",
        f"{foreign}: its tokenizer is not that of {one}, by whose ids it will be run",
        f"config.json: attention is no longer cut off at sliding_window 4096, as in {one}",
    )


def test_a_plan_says_what_becomes_of_what_and_counts_what_prompts_read(dense: Dense) -> None:
    one, two = dense["llama"]
    random, hidden = (
        plan_recipe(mixture(one, one, two, prompts=PROMPTS, gate_mode=mode)) for mode in ("random", "hidden")
    )
    assert [group.made_by for group in tensor_groups(random)] == ["copy", "random normal"]
    assert [group.made_by for group in tensor_groups(hidden)] == ["copy", "router from prompts (hidden_last)"]
    layer_bytes = 4 * (16 * 16 * 2 + 16 * 8 * 2 + 3 * 16 * 32 + 2 * 16)
    assert hidden.read_bytes - random.read_bytes == 2 * layer_bytes


def test_routers_from_prompts_need_transformers(dense: Dense, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = dense["llama"]
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(PlanError) as caught:
        plan_recipe(mixture(one, one, two, prompts=PROMPTS, gate_mode="hidden"))
    assert str(caught.value) == "gate_mode hidden: needs transformers, which is not installed"
    assert caught.value.hint == "pip install 'hubmerge[transformers]', or write gate_mode: random."


def test_whatever_changes_the_bytes_changes_the_fingerprint(dense: Dense) -> None:
    one, two = dense["llama"]
    others = [
        mixture(one, one, two, prompts=PROMPTS, gate_mode="cheap_embed"),
        mixture(one, one, two, prompts=PROMPTS[::-1], gate_mode="cheap_embed"),
        mixture(one, one, two, prompts=PROMPTS, gate_mode="hidden"),
        mixture(one, one, two),
        mixture(one, one, two, seed=1),
        mixture(one, one, two, prompts=[{"noise_scale": 0.1}]),
        mixture(one, one, two, prompts=[{"residual_scale": 0.1}]),
        mixture(one, two, one),
    ]
    assert len({fingerprint(plan_recipe(recipe)) for recipe in others}) == len(others)
