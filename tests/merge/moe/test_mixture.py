"""Mixtures of experts as transformers loads and runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.adapters import write_adapter
from tests.checkpoints import read_tensors, write_changed, write_llama
from tests.merge.merging import hashes, merged
from tests.merge.moe.experts import PROMPTS, mixture

Dense = Mapping[str, tuple[Path, Path]]

CLASSES = {
    "llama": "MixtralForCausalLM",
    "mistral": "MixtralForCausalLM",
    "qwen2": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3MoeForCausalLM",
}
IDS = torch.tensor([[1, 5, 9, 33, 20, 7]])


def shared(kind: str, model: Path, **more: Any) -> dict[str, Any]:
    """Returns the shared expert that a mixture of Qwen2 needs."""
    return {"shared_experts": [{"source_model": str(model), **more}]} if kind == "qwen2" else {}


def logits(folder: Path) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("kind", CLASSES)
def test_a_mixture_loads_without_a_missing_or_a_superfluous_tensor(dense: Dense, kind: str, tmp_path: Path) -> None:
    one, two = dense[kind]
    merged(mixture(one, one, two, dtype="bfloat16", **shared(kind, one)), tmp_path / "moe")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "moe", output_loading_info=True)
    assert type(model).__name__ == CLASSES[kind]
    assert not any(info.values()), info
    assert AutoTokenizer.from_pretrained(tmp_path / "moe").vocab_size == 64


@pytest.mark.parametrize("kind", CLASSES)
def test_a_mixture_of_identical_experts_is_the_dense_model(dense: Dense, kind: str, tmp_path: Path) -> None:
    one, _ = dense[kind]
    merged(mixture(one, one, one, one, one, **shared(kind, one, residual_scale=0)), tmp_path / "moe")
    assert torch.allclose(logits(tmp_path / "moe"), logits(one), rtol=1e-4, atol=1e-4)


def test_mixtures_with_random_routers_are_merged_like_any_models(dense: Dense, tmp_path: Path) -> None:
    one, two = dense["mistral"]
    inner = [mixture(one, one, two, seed=seed, dtype="float32") for seed in (1, 2)]
    steps = [str(tmp_path / str(number)) for number in range(2)]
    for recipe, folder in zip(inner, steps, strict=True):
        merged(recipe, Path(folder))
    outer = {"merge_method": "slerp", "parameters": {"t": 0.3}, "dtype": "float32"}
    tree, made = (
        {**outer, "base_model": first, "models": [{"model": first}, {"model": second}]}
        for first, second in (inner, steps)
    )
    merged(tree, tmp_path / "tree")
    merged(made, tmp_path / "made")
    assert hashes(tmp_path / "tree", "*.safetensors") == hashes(tmp_path / "made", "*.safetensors")
    assert logits(tmp_path / "tree").isfinite().all()


def test_a_llama_with_a_shared_expert_becomes_a_qwen(dense: Dense, tmp_path: Path) -> None:
    one, _ = dense["llama"]
    merged(mixture(one, one, one, **shared("qwen2", one, residual_scale=0)), tmp_path / "moe")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "moe", output_loading_info=True)
    assert type(model).__name__ == "Qwen2MoeForCausalLM"
    assert not any(info.values()), info
    assert torch.allclose(logits(tmp_path / "moe"), logits(one), rtol=1e-4, atol=1e-4)


def test_each_expert_is_its_model_and_the_rest_is_the_base(dense: Dense, tmp_path: Path) -> None:
    one, two = dense["llama"]
    made, base, other = merged(mixture(one, two, one), tmp_path / "moe"), read_tensors(one), read_tensors(two)
    for layer in range(3):
        experts = f"model.layers.{layer}.block_sparse_moe.experts"
        for number, source in enumerate((other, base)):
            for new, old in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")):
                expected = source[f"model.layers.{layer}.mlp.{old}.weight"]
                assert torch.equal(made[f"{experts}.{number}.{new}.weight"], expected)
    outside = [name for name in base if ".mlp." not in name]
    assert all(torch.equal(made[name], base[name]) for name in outside)
    assert len(made) == len(outside) + 3 * (2 * 3 + 1)


def test_noise_and_residual_scale_change_what_they_should(dense: Dense, tmp_path: Path) -> None:
    one, _ = dense["llama"]
    changes = ({"noise_scale": 0.1, "residual_scale": 0.5}, {"residual_scale": 0.5})
    made, base = merged(mixture(one, one, one, prompts=changes), tmp_path / "moe"), read_tensors(one)
    noise = []
    for layer in range(3):
        for new, old, factor in (("w1", "gate_proj", 1.0), ("w2", "down_proj", 0.5), ("w3", "up_proj", 1.0)):
            weight = base[f"model.layers.{layer}.mlp.{old}.weight"]
            noisy, scaled = (
                made[f"model.layers.{layer}.block_sparse_moe.experts.{number}.{new}.weight"] for number in (0, 1)
            )
            assert torch.equal(scaled, factor * weight)
            noise.append((noisy / factor - weight).flatten())
    together = torch.cat(noise)
    assert together.std().item() == pytest.approx(0.1, rel=0.05)
    assert together.mean().item() == pytest.approx(0, abs=0.005)


def test_random_routers_depend_on_seed_and_layer_alone(dense: Dense, tmp_path: Path) -> None:
    one, two = dense["llama"]
    first = merged(mixture(one, one, two), tmp_path / "first", threads=1)
    again = merged(mixture(one, one, two, name="x"), tmp_path / "again", threads=2, shard_bytes=20_000)
    other = merged(mixture(one, one, two, seed=1), tmp_path / "other")
    gates = [f"model.layers.{layer}.block_sparse_moe.gate.weight" for layer in range(3)]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in gates)
    assert not torch.equal(first[gates[0]], first[gates[1]])
    values = torch.cat([first[name].flatten() for name in gates])
    assert values.std().item() == pytest.approx(1, abs=0.2)


def test_uniform_routers_are_as_wide_as_a_fresh_linear_layer(dense: Dense, tmp_path: Path) -> None:
    one, two = dense["llama"]
    made = merged(mixture(one, one, two, gate_mode="uniform_random"), tmp_path / "moe")
    values = torch.cat([tensor.flatten() for name, tensor in made.items() if name.endswith("gate.weight")])
    assert values.abs().max().item() == pytest.approx(0.25, rel=0.1)
    assert values.abs().max().item() < 0.25


def test_an_expert_may_be_a_merge_or_wear_an_adapter(dense: Dense, tmp_path: Path) -> None:
    one, two = dense["llama"]
    write_adapter(tmp_path / "lora", one, target_modules=["down_proj"])
    mean = {
        "merge_method": "linear",
        "models": [{"model": str(model), "parameters": {"weight": 0.5}} for model in (one, two)],
    }
    recipe = mixture(one, f"{one}+{tmp_path / 'lora'}", one)
    recipe["experts"][1]["source_model"] = mean
    made, base, other = merged(recipe, tmp_path / "moe"), read_tensors(one), read_tensors(two)
    name = "model.layers.1.mlp.down_proj.weight"
    adapted, mixed = (made[f"model.layers.1.block_sparse_moe.experts.{number}.w2.weight"] for number in (0, 1))
    assert torch.allclose(mixed, (base[name] + other[name]) / 2)
    assert not torch.equal(adapted, base[name])


def test_what_the_dense_class_takes_for_granted_is_written_down(dense: Dense, tmp_path: Path) -> None:
    """Mixtral would take 8 key-value heads, an epsilon of 1e-5 and a theta of a million."""
    one, _ = dense["llama"]
    silent = write_changed(tmp_path / "silent", one, {})
    config = json.loads((silent / "config.json").read_text())
    for key in ("rms_norm_eps", "rope_parameters", "head_dim"):
        del config[key]
    (silent / "config.json").write_text(json.dumps(config))
    merged(mixture(silent, silent, silent), tmp_path / "moe")
    made = json.loads((tmp_path / "moe/config.json").read_text())
    assert (made["rms_norm_eps"], made["rope_theta"], made["num_key_value_heads"]) == (1e-6, 10_000.0, 2)
    assert torch.allclose(logits(tmp_path / "moe"), logits(silent), rtol=1e-4, atol=1e-4)


def test_a_tied_head_stays_tied(tmp_path: Path) -> None:
    tied = write_llama(tmp_path / "tied", seed=4, tied=True)
    made = merged(mixture(tied, tied, tied, dtype="float32"), tmp_path / "moe")
    assert "lm_head.weight" not in made
    assert torch.allclose(logits(tmp_path / "moe"), logits(tied), rtol=1e-4, atol=1e-4)


def test_the_same_recipe_makes_the_same_files(dense: Dense, tmp_path: Path) -> None:
    one, two = dense["llama"]
    recipe = mixture(one, one, two, prompts=PROMPTS, gate_mode="hidden")
    merged(recipe, tmp_path / "first" / "moe")
    merged(recipe, tmp_path / "second" / "moe")
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")


def test_the_card_tells_of_experts_and_prompts(dense: Dense, tmp_path: Path) -> None:
    one, two = dense["llama"]
    merged(mixture(one, one, two, prompts=PROMPTS, gate_mode="cheap_embed"), tmp_path / "moe")
    card = (tmp_path / "moe/README.md").read_text()
    assert "- moe\n" in card
    assert "Mixture of experts" in card
    assert "expert 0 for “t4 t5”, “t6 t7 t8”, not for “t9”" in card
    assert "expert 1 for “t10 t11 t12”" in card
