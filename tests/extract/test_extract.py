"""Adapters of differences, beside peft and beside hubmerge's own `base+adapter`."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from hubmerge.extract.parts import Choice
from tests.adapters import load, logits, merged_by_peft
from tests.checkpoints import read_tensors, write_changed, write_llama, write_model
from tests.extract.models import (
    WHOLE,
    config_of,
    extracted,
    factors_of,
    with_hubmerge,
    with_peft,
    write_finetuned,
)

Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extract")


@pytest.fixture(scope="module")
def base(home: Path) -> Path:
    return write_llama(home / "base", seed=1, dtype=torch.float32)


@pytest.fixture(scope="module")
def other(home: Path) -> Path:
    return write_llama(home / "other", seed=2, dtype=torch.float32)


@pytest.fixture(scope="module")
def tied(home: Path) -> Path:
    return write_llama(home / "tied", seed=1, dtype=torch.float32, tied=True)


@pytest.fixture(scope="module")
def finetuned(home: Path, base: Path) -> Path:
    return write_finetuned(home / "finetuned", base, rank=3)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def write_gpt2(folder: Path, *, seed: int, vocab: int = 32) -> Path:
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=vocab, bos_token_id=1, eos_token_id=2)
    return write_model(folder, transformers.GPT2LMHeadModel(config), seed=seed, dtype=torch.float32)


def test_a_difference_of_low_rank_is_recovered_to_rounding(base: Path, finetuned: Path, tmp_path: Path) -> None:
    made = extracted(finetuned, base, tmp_path / "lora", rank=3)
    assert made.report.relative_error < 1e-5
    theirs = read_tensors(finetuned)
    for ours in (
        with_hubmerge(base, tmp_path / "lora", tmp_path / "hubmerge"),
        merged_by_peft(base, tmp_path / "lora", tmp_path / "peft"),
    ):
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-5)


def test_only_what_has_changed_is_in_the_adapter(base: Path, tmp_path: Path) -> None:
    finetuned = write_finetuned(tmp_path / "finetuned", base, rank=3, names=("0.self_attn.q_proj",))
    made = extracted(finetuned, base, tmp_path / "lora", rank=4)
    assert [*factors_of(tmp_path / "lora")] == [f"base_model.model.{Q_PROJ}.lora_{factor}.weight" for factor in "AB"]
    config = config_of(tmp_path / "lora")
    assert config["target_modules"] == [Q_PROJ]
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (4, 4, {})
    assert [(group.group, group.count, group.ranks) for group in made.report.groups] == [
        ("self_attn.q_proj", 1, (4, 4))
    ]


def test_two_models_of_which_everything_is_kept_are_one(base: Path, other: Path, tmp_path: Path) -> None:
    extracted(other, base, tmp_path / "lora", choice=WHOLE)
    close(with_peft(base, tmp_path / "lora"), logits(load(other)))
    for name, tensor in with_hubmerge(base, tmp_path / "lora", tmp_path / "out").items():
        torch.testing.assert_close(tensor, read_tensors(other)[name], rtol=1e-4, atol=1e-4)


def test_the_error_is_the_least_that_the_rank_allows(base: Path, other: Path, tmp_path: Path) -> None:
    made = extracted(other, base, tmp_path / "lora", rank=4, choice=WHOLE)
    ours, one, two = with_hubmerge(base, tmp_path / "lora", tmp_path / "out"), read_tensors(base), read_tensors(other)
    lost = least = energy = 0.0
    for name, tensor in two.items():
        lost += float((tensor - ours[name]).square().sum())
        energy += float((tensor - one[name]).square().sum())
        if tensor.dim() == 2:
            least += float(torch.linalg.svdvals(tensor - one[name])[4:].square().sum())
    assert lost == pytest.approx(least, rel=1e-4)
    assert made.report.relative_error == pytest.approx(math.sqrt(lost / energy), rel=1e-4)


def test_each_weight_has_the_rank_that_keeps_the_energy(base: Path, finetuned: Path, tmp_path: Path) -> None:
    made = extracted(finetuned, base, tmp_path / "lora", rank=16, energy=0.9)
    assert all(group.kept is not None and group.kept >= 0.9 for group in made.report.groups)
    ours, one, two = (
        with_hubmerge(base, tmp_path / "lora", tmp_path / "out"),
        read_tensors(base),
        read_tensors(finetuned),
    )
    for name, tensor in two.items():
        assert (tensor - ours[name]).square().sum() <= 0.1001 * (tensor - one[name]).square().sum()
    config = config_of(tmp_path / "lora")
    assert config["rank_pattern"] == config["alpha_pattern"] != {}
    assert config["r"] not in config["rank_pattern"].values()
    close(with_peft(base, tmp_path / "lora"), logits(load(tmp_path / "out")))


@pytest.mark.parametrize("energy", [None, 0.9])
def test_threads_change_no_bit(tmp_path: Path, energy: float | None) -> None:
    base = write_llama(tmp_path / "base", seed=3, layers=1, hidden=320, vocab=512, dtype=torch.float32, tokenizer=False)
    finetuned = write_llama(
        tmp_path / "other", seed=4, layers=1, hidden=320, vocab=512, dtype=torch.bfloat16, tokenizer=False
    )
    digests = set()
    for threads in (1, 3):
        folder = tmp_path / f"lora-{threads}"
        extracted(finetuned, base, folder, rank=40, energy=energy, threads=threads)
        files = (folder / name for name in ("adapter_model.safetensors", "adapter_config.json"))
        digests.add(hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest())
    assert len(digests) == 1


def test_the_transposed_weights_of_a_gpt2(tmp_path: Path) -> None:
    base, finetuned = write_gpt2(tmp_path / "base", seed=3), write_gpt2(tmp_path / "finetuned", seed=4)
    extracted(finetuned, base, tmp_path / "lora", choice=WHOLE)
    assert config_of(tmp_path / "lora")["fan_in_fan_out"] is True
    close(with_peft(base, tmp_path / "lora"), logits(load(finetuned)))
    with_hubmerge(base, tmp_path / "lora", tmp_path / "out")
    close(logits(load(tmp_path / "out")), logits(load(finetuned)))


def test_a_base_that_was_saved_without_its_head(tmp_path: Path) -> None:
    base, finetuned = write_gpt2(tmp_path / "base", seed=3), write_gpt2(tmp_path / "finetuned", seed=4)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in read_tensors(base).items()}
    bare |= dict.fromkeys(read_tensors(base))
    bare["h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    bare_base = write_changed(tmp_path / "bare", base, bare)
    made = extracted(finetuned, bare_base, tmp_path / "lora", choice=WHOLE)
    assert made.notes == (f"transformer.h.*.attn.bias: left out; {finetuned} lacks it",)
    close(with_peft(base, tmp_path / "lora"), logits(load(finetuned)))
    with_hubmerge(bare_base, tmp_path / "lora", tmp_path / "out")
    close(logits(load(tmp_path / "out")), logits(load(finetuned)))


def test_a_tied_model_stays_tied(tied: Path, tmp_path: Path) -> None:
    finetuned = write_llama(tmp_path / "finetuned", seed=2, dtype=torch.float32, tied=True)
    extracted(finetuned, tied, tmp_path / "lora", choice=WHOLE)
    assert config_of(tmp_path / "lora")["ensure_weight_tying"] is True
    close(with_peft(tied, tmp_path / "lora"), logits(load(finetuned)))
    assert "lm_head.weight" not in with_hubmerge(tied, tmp_path / "lora", tmp_path / "out")
    close(logits(load(tmp_path / "out")), logits(load(finetuned)))


def test_a_head_that_was_untied_in_training_has_factors_of_its_own(tied: Path, other: Path, tmp_path: Path) -> None:
    extracted(other, tied, tmp_path / "lora", choice=WHOLE)
    assert "ensure_weight_tying" not in config_of(tmp_path / "lora")
    close(with_peft(tied, tmp_path / "lora"), logits(load(other)))
    with_hubmerge(tied, tmp_path / "lora", tmp_path / "out")
    close(logits(load(tmp_path / "out")), logits(load(other)))


@pytest.mark.parametrize("is_tied", [False, True])
def test_a_vocabulary_that_was_enlarged_is_saved_whole(base: Path, tied: Path, tmp_path: Path, is_tied: bool) -> None:
    start = tied if is_tied else base
    finetuned = write_llama(tmp_path / "finetuned", seed=2, vocab=72, dtype=torch.float32, tied=is_tied)
    made = extracted(finetuned, start, tmp_path / "lora", choice=WHOLE)
    assert {"embed_tokens", "lm_head"} <= {*config_of(tmp_path / "lora")["modules_to_save"]}
    assert ("model.embed_tokens", "saved", None) in [(g.group, g.how, g.kept) for g in made.report.groups]
    close(with_peft(start, tmp_path / "lora", rows=72), logits(load(finetuned)))
    with_hubmerge(start, tmp_path / "lora", tmp_path / "out")
    result = load(tmp_path / "out")
    close(logits(result), logits(load(finetuned)))
    assert result.config.vocab_size == 72
    assert "resize_token_embeddings(72)" in (tmp_path / "lora/README.md").read_text()


def test_biases_of_weights_are_copied_where_norms_are(tmp_path: Path) -> None:
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.Qwen2Config(**size, num_key_value_heads=2, vocab_size=64)
    base, finetuned = (
        write_model(tmp_path / name, transformers.Qwen2ForCausalLM(config), seed=seed, dtype=torch.float32)
        for name, seed in (("base", 1), ("finetuned", 2))
    )
    extracted(finetuned, base, tmp_path / "lora", choice=WHOLE)
    assert config_of(tmp_path / "lora")["bias"] == "lora_only"
    close(with_peft(base, tmp_path / "lora"), logits(load(finetuned)))
    with_hubmerge(base, tmp_path / "lora", tmp_path / "out")
    close(logits(load(tmp_path / "out")), logits(load(finetuned)))


def test_a_rank_that_small_weights_do_not_have_is_filled_with_zeros(base: Path, other: Path, tmp_path: Path) -> None:
    extracted(other, base, tmp_path / "lora", rank=20)
    config, factors = config_of(tmp_path / "lora"), factors_of(tmp_path / "lora")
    assert (config["r"], config["rank_pattern"]) == (20, {})
    assert all(20 in tensor.shape for tensor in factors.values())
    assert not factors[f"base_model.model.{Q_PROJ}.lora_A.weight"][16:].any()


def test_the_experts_of_a_mixture(tmp_path: Path) -> None:
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.MixtralConfig(**size, num_key_value_heads=2, vocab_size=64, num_local_experts=4)
    base, finetuned = (
        write_model(tmp_path / name, transformers.MixtralForCausalLM(config), seed=seed, dtype=torch.float32)
        for name, seed in (("base", 1), ("finetuned", 2))
    )
    extracted(finetuned, base, tmp_path / "lora", rank=16, choice=WHOLE)
    close(with_peft(base, tmp_path / "lora"), logits(load(finetuned)))
    with_hubmerge(base, tmp_path / "lora", tmp_path / "out")
    close(logits(load(tmp_path / "out")), logits(load(finetuned)))
    made = extracted(finetuned, base, tmp_path / "energy", energy=0.5)
    note = "experts will have different ranks, which peft does not load where transformers joins them; use --rank"
    assert made.notes == (note,)


def test_what_is_not_kept_is_in_the_error(base: Path, other: Path, tmp_path: Path) -> None:
    made = extracted(other, base, tmp_path / "lora")
    kept = {group.group: (group.how, group.kept) for group in made.report.groups}
    assert kept["input_layernorm"] == ("left out", 0.0)
    assert made.report.relative_error > 0.01
    assert config_of(tmp_path / "lora")["modules_to_save"] is None


@pytest.mark.parametrize(
    ("choice", "targets"),
    [
        (Choice(include=("self_attn",)), ["k_proj", "o_proj", "q_proj", "v_proj"]),
        (Choice(include=("layer",), exclude=("mlp", "[kv]_proj$")), ["o_proj", "q_proj"]),
        (Choice(exclude=("layer", "norm")), ["lm_head", "embed_tokens"]),
        (Choice(include=("head",)), ["lm_head"]),
        (Choice(include=("layers.1.mlp.up", "embed"), embeddings=False), ["model.layers.1.mlp.up_proj"]),
    ],
    ids=str,
)
def test_modules_are_chosen_by_role_and_name(
    base: Path, other: Path, tmp_path: Path, choice: Choice, targets: list[str]
) -> None:
    extracted(other, base, tmp_path / "lora", rank=2, choice=choice)
    assert config_of(tmp_path / "lora")["target_modules"] == targets


@pytest.mark.parametrize(("code", "dtype"), [("BF16", torch.bfloat16), ("F16", torch.float16)])
def test_the_adapter_has_the_dtype_that_is_asked_for(
    base: Path, finetuned: Path, tmp_path: Path, code: str, dtype: torch.dtype
) -> None:
    made = extracted(finetuned, base, tmp_path / "lora", rank=3, dtype=code)
    assert {tensor.dtype for tensor in factors_of(tmp_path / "lora").values()} == {dtype}
    assert 1e-4 < made.report.relative_error < 1e-2
