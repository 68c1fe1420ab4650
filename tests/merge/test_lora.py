"""Adapters folded in while a merge is planned and streamed, beside peft, which loads and changes whole models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from tests.adapters import ADAPTER_FILE, load, logits, merged_by_peft, rename_tensors, write_adapter
from tests.checkpoints import read_tensors, write_llama, write_model
from tests.merge.merging import merged
from tests.merge.recipes import whole

ATTENTION = ["q_proj", "v_proj"]
EVERYTHING = "all-linear"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("lora") / "llama", seed=1, dtype=torch.float32)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("lora") / "tied", seed=2, dtype=torch.float32, tied=True)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=32)
    return write_model(
        tmp_path_factory.mktemp("lora") / "gpt2", transformers.GPT2LMHeadModel(config), seed=3, dtype=torch.float32
    )


def folded(base: Path, adapter: Path, folder: Path) -> dict[str, Tensor]:
    return merged(whole("passthrough", Path(f"{base}+{adapter}")), folder)


def assert_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(
            ours[name], tensor, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    "config",
    [
        {"r": 8, "lora_alpha": 32, "target_modules": EVERYTHING},
        {"r": 8, "lora_alpha": 16, "use_rslora": True, "target_modules": EVERYTHING},
        {"r": 4, "target_modules": ATTENTION, "rank_pattern": {"q_proj": 2, r"layers\.1\..*v_proj": 6}},
        {"r": 4, "target_modules": ATTENTION, "alpha_pattern": {"model.layers.0.self_attn.q_proj": 3, "v_proj": 20}},
        {"r": 4, "target_modules": ["embed_tokens", "lm_head", "up_proj"]},
        {"r": 4, "target_modules": ATTENTION, "modules_to_save": ["embed_tokens", "lm_head", "norm"]},
        {"r": 4, "target_modules": ["embed_tokens"], "modules_to_save": ["lm_head"]},
    ],
    ids=str,
)
def test_a_llama_is_what_peft_makes_of_it(llama: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, **config)
    assert_same(folded(llama, adapter, tmp_path / "out"), merged_by_peft(llama, adapter, tmp_path / "peft"))


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
        {"target_modules": ["attn.c_proj"], "bias": "lora_only", "fan_in_fan_out": True},
        {"target_modules": ["wpe", "c_fc"], "bias": "all", "fan_in_fan_out": True},
    ],
    ids=str,
)
def test_a_gpt2_with_its_transposed_weights_is_what_peft_makes_of_it(
    gpt2: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    adapter = write_adapter(tmp_path / "adapter", gpt2, r=4, **config)
    assert_same(folded(gpt2, adapter, tmp_path / "out"), merged_by_peft(gpt2, adapter, tmp_path / "peft"))


def test_a_square_weight_is_stored_as_the_others_whatever_the_flag_says(gpt2: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", gpt2, r=4, target_modules=["c_attn", "c_proj", "lm_head"])
    assert json.loads((adapter / "adapter_config.json").read_text())["fan_in_fan_out"] is False
    theirs = merged_by_peft(gpt2, adapter, tmp_path / "peft")
    square = "transformer.h.1.attn.c_proj.weight"
    torch.testing.assert_close(folded(gpt2, adapter, tmp_path / "out")[square], theirs[square])


def test_convolutions_are_what_peft_makes_of_them(tmp_path: Path) -> None:
    config = transformers.WhisperConfig(
        **{"d_model": 16, "vocab_size": 32, "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 8},
        **{f"{side}_{key}": 2 for side in ("encoder", "decoder") for key in ("layers", "attention_heads")},
        **{f"{side}_ffn_dim": 16 for side in ("encoder", "decoder")},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    )
    auto = transformers.WhisperForConditionalGeneration
    base = write_model(tmp_path / "base", auto(config), seed=4, dtype=torch.float32)
    adapter = write_adapter(tmp_path / "adapter", base, auto=auto, r=4, target_modules=["conv1", "conv2", "q_proj"])
    theirs = merged_by_peft(base, adapter, tmp_path / "peft", auto=auto)
    assert_same(folded(base, adapter, tmp_path / "out"), theirs)


def test_an_adapter_of_a_vlm_in_memory_fits_the_names_on_disk(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = transformers.CLIPVisionConfig(**small, image_size=28, patch_size=14)
    text = transformers.LlamaConfig(**small, vocab_size=32, num_key_value_heads=1, pad_token_id=0)
    auto = transformers.LlavaForConditionalGeneration
    base = write_model(
        tmp_path / "base",
        auto(transformers.LlavaConfig(text_config=text, vision_config=vision)),
        seed=5,
        dtype=torch.float32,
    )
    adapter = write_adapter(tmp_path / "adapter", base, auto=auto, r=4, target_modules=["q_proj", "k_proj", "fc1"])
    assert_same(folded(base, adapter, tmp_path / "out"), merged_by_peft(base, adapter, tmp_path / "peft", auto=auto))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("base_model.model.model.", "base_model.model."),
        ("base_model.model.model.", "base_model.model.model.language_model."),
        ("base_model.model.", ""),
        ("lora_A.weight", "lora_A.default.weight"),
    ],
)
def test_names_of_other_wrappers_are_understood(llama: Path, tmp_path: Path, old: str, new: str) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, r=4, target_modules=ATTENTION)
    expected = folded(llama, adapter, tmp_path / "plain")
    rename_tensors(adapter, old, new)
    assert_same(folded(llama, adapter, tmp_path / "out"), expected)


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"target_modules": ATTENTION, "modules_to_save": ["embed_tokens"]},
        {"target_modules": ATTENTION, "modules_to_save": ["lm_head"]},
    ],
    ids=str,
)
def test_a_tied_head_and_its_embedding_stay_apart_as_they_were_trained(
    tied: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    adapter = write_adapter(tmp_path / "adapter", tied, r=4, **config)
    folded(tied, adapter, tmp_path / "out")
    result = load(tmp_path / "out")
    assert result.config.tie_word_embeddings is False
    trained = PeftModel.from_pretrained(load(tied), adapter)
    torch.testing.assert_close(logits(result), logits(trained), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "config", [{"target_modules": ["embed_tokens"]}, {"modules_to_save": ["embed_tokens"]}], ids=str
)
def test_an_adapter_that_keeps_the_tie_leaves_the_base_tied(tied: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    config = {"target_modules": ATTENTION, **config}
    adapter = write_adapter(tmp_path / "adapter", tied, r=4, ensure_weight_tying=True, **config)
    assert "lm_head.weight" not in folded(tied, adapter, tmp_path / "out")
    result = load(tmp_path / "out")
    assert result.config.tie_word_embeddings is True
    trained = PeftModel.from_pretrained(load(tied), adapter)
    torch.testing.assert_close(logits(result), logits(trained), rtol=1e-4, atol=1e-4)


def test_a_tied_base_whose_embedding_the_adapter_leaves_alone_stays_tied(tied: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tied, r=4, target_modules=ATTENTION)
    assert_same(folded(tied, adapter, tmp_path / "out"), merged_by_peft(tied, adapter, tmp_path / "peft"))


def test_the_result_has_the_dtype_of_the_base_and_is_rounded_once(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base", seed=6, dtype=torch.bfloat16)
    adapter = write_adapter(tmp_path / "adapter", base, r=4, target_modules=ATTENTION, modules_to_save=["norm"])
    theirs = merged_by_peft(base, adapter, tmp_path / "peft")
    ours = folded(base, adapter, tmp_path / "out")
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    assert all(torch.equal(ours[name], tensor.bfloat16()) for name, tensor in theirs.items() if "proj" not in name)
    near = {name: tensor.bfloat16().float() for name, tensor in theirs.items()}
    for name, tensor in near.items():
        torch.testing.assert_close(ours[name].float(), tensor, rtol=2**-7, atol=1e-6)


def test_an_fp64_recipe_adds_its_adapters_in_fp64(llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, r=8, lora_alpha=4, target_modules=["q_proj"])
    stored, name = read_tensors(llama), "model.layers.1.self_attn.q_proj.weight"
    factors = load_file(adapter / ADAPTER_FILE)
    a, b = (factors[f"base_model.model.{name.removesuffix('.weight')}.lora_{which}.weight"].double() for which in "AB")
    recipe = whole("passthrough", Path(f"{llama}+{adapter}"), dtype="float64")
    result = merged(recipe, tmp_path / "out")
    torch.testing.assert_close(result[name], stored[name].double() + b @ a / 2, rtol=1e-14, atol=1e-14)


def test_adapters_of_one_base_are_merged_like_any_models(llama: Path, tmp_path: Path) -> None:
    one = write_adapter(tmp_path / "one", llama, seed=1, r=4, target_modules=ATTENTION)
    two = write_adapter(tmp_path / "two", llama, seed=2, r=2, target_modules=EVERYTHING)
    half = {"weight": 0.5}
    adapted = [(Path(f"{llama}+{adapter}"), half) for adapter in (one, two)]
    ours = merged(whole("task_arithmetic", *adapted, base_model=llama), tmp_path / "out")
    base = read_tensors(llama)
    deltas = [
        {
            name: tensor - base[name]
            for name, tensor in merged_by_peft(llama, adapter, tmp_path / f"{adapter}.m").items()
        }
        for adapter in (one, two)
    ]
    assert_same(ours, {name: base[name] + 0.5 * (deltas[0][name] + deltas[1][name]) for name in base})


def test_a_base_model_may_have_an_adapter(llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, r=4, target_modules=ATTENTION)
    other = write_llama(tmp_path / "other", seed=9, dtype=torch.float32)
    adapted = {"model": str(llama), "lora": {"path": str(adapter)}}
    recipe = whole("slerp", other, adapted, base_model=adapted, parameters={"t": 0})
    assert_same(merged(recipe, tmp_path / "out"), merged_by_peft(llama, adapter, tmp_path / "peft"))


def test_several_blocks_and_threads_change_nothing(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base", seed=7, hidden=256, vocab=1024, dtype=torch.float32, tokenizer=False)
    adapter = write_adapter(tmp_path / "adapter", base, r=4, target_modules=["embed_tokens", "lm_head", "q_proj"])
    ours = folded(base, adapter, tmp_path / "out")
    assert_same(ours, merged_by_peft(base, adapter, tmp_path / "peft"))
