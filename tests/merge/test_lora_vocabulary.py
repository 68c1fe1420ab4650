"""Adapters that were trained after the vocabulary was enlarged: their embeddings have more rows than the base's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoTokenizer, PreTrainedModel

from hubmerge.errors import PlanError
from hubmerge.merge.pipeline import plan_recipe
from tests.adapters import change_tensors, load, logits
from tests.checkpoints import numbered_tokens, read_tensors, write_llama, write_tokenizer
from tests.merge.merging import merged
from tests.merge.recipes import whole

ROWS = 72
EMBEDDING = "base_model.model.model.embed_tokens"
HEAD = "base_model.model.lm_head"


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary") / "base"
    return write_llama(folder, seed=1, dtype=torch.float32, tied=request.param)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("vocabulary") / "untied", seed=1, dtype=torch.float32)


def enlarged(base: Path) -> PreTrainedModel:
    torch.manual_seed(5)
    model = load(base)
    model.resize_token_embeddings(ROWS, mean_resizing=False)
    return model


def write_enlarged(folder: Path, base: Path, *, targets: Sequence[str] = ("q_proj",), **config: Any) -> PeftModel:
    """Returns a model with a random adapter and a larger vocabulary; the adapter and the tokenizer are in `folder`."""
    config = {"init_lora_weights": False, "r": 4, "target_modules": list(targets), **config}
    model = get_peft_model(enlarged(base), LoraConfig(**config))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder, save_embedding_layers=True)
    write_tokenizer(folder, numbered_tokens(ROWS))
    return model


def adapted(base: Path, adapter: Path) -> dict[str, Any]:
    return whole("passthrough", Path(f"{base}+{adapter}"))


@pytest.mark.parametrize(
    "config",
    [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}, {"targets": ["embed_tokens", "lm_head", "q_proj"]}],
    ids=["saved embeddings", "modules_to_save", "LoRA on them"],
)
def test_the_result_has_the_larger_vocabulary(base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    trained = write_enlarged(tmp_path / "adapter", base, **config)
    merged(adapted(base, tmp_path / "adapter"), tmp_path / "out")
    result = load(tmp_path / "out")
    assert result.config.vocab_size == ROWS
    torch.testing.assert_close(logits(result), logits(trained), rtol=1e-4, atol=1e-4)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == ROWS


def test_the_plan_says_whose_tokenizer_is_used(untied: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    write_enlarged(adapter, untied)
    note = f"{adapter}: it brings a vocabulary of 72 rows, and its tokenizer is used"
    assert plan_recipe(adapted(untied, adapter)).notes == (note,)


def test_the_tokenizer_of_the_base_stays_where_the_adapter_has_none(untied: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    write_enlarged(adapter, untied)
    (adapter / "tokenizer.json").unlink()
    assert plan_recipe(adapted(untied, adapter)).notes == (
        f"{adapter}: it brings a vocabulary of 72 rows and no tokenizer; that of the base does not know the new tokens",
    )
    merged(adapted(untied, adapter), tmp_path / "out")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == 64


def test_an_embedding_without_the_head_that_belongs_to_it_is_a_problem(untied: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    write_enlarged(adapter, untied)
    change_tensors(adapter, {f"{HEAD}.weight": None})
    with pytest.raises(PlanError) as caught:
        plan_recipe(adapted(untied, adapter))
    assert str(caught.value) == (
        f"{adapter}: lm_head.weight: it would have 64 rows, but the embedding has 72; "
        "the adapter must bring both or neither"
    )


def test_a_head_without_the_embedding_that_belongs_to_it_is_a_problem(untied: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    write_enlarged(adapter, untied)
    change_tensors(adapter, {f"{EMBEDDING}.weight": None})
    with pytest.raises(PlanError) as caught:
        plan_recipe(adapted(untied, adapter))
    assert str(caught.value) == (
        f"{adapter}: lm_head.weight: it would have 72 rows, but the embedding has 64; "
        "the adapter must bring both or neither"
    )


def test_rows_of_another_length_are_a_problem(untied: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    write_enlarged(adapter, untied)
    change_tensors(adapter, {f"{EMBEDDING}.weight": torch.ones(72, 12)})
    with pytest.raises(PlanError) as caught:
        plan_recipe(adapted(untied, adapter))
    assert caught.value.problems[0] == (
        f"{adapter}: {EMBEDDING}.weight: it takes the place of model.embed_tokens.weight, 64x16 F32, but is 72x12 F32"
    )


def test_factors_for_more_tokens_than_the_base_has_need_its_enlarged_weights(untied: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    write_enlarged(adapter, untied, targets=["embed_tokens"])
    change_tensors(adapter, {f"{EMBEDDING}.base_layer.weight": None, f"{HEAD}.weight": None})
    with pytest.raises(PlanError) as caught:
        plan_recipe(adapted(untied, adapter))
    assert str(caught.value) == (
        f"{adapter}: {EMBEDDING}.lora_embedding_A: it is 4x72 and 16x4, which makes no delta of 64x16"
    )


def test_models_of_both_vocabularies_are_merged_token_by_token(untied: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    write_enlarged(adapter, untied)
    recipe = whole(
        "linear",
        (Path(f"{untied}+{adapter}"), {"weight": 0.5}),
        (untied, {"weight": 0.5}),
        tokenizer={"source": "union"},
    )
    ours = merged(recipe, tmp_path / "out")
    merged(adapted(untied, adapter), tmp_path / "alone")
    alone = read_tensors(tmp_path / "alone")["model.embed_tokens.weight"]
    assert ours["model.embed_tokens.weight"].shape == (ROWS, 16)
    torch.testing.assert_close(ours["model.embed_tokens.weight"][64:], alone[64:])
