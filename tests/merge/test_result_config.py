from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from hubmerge.merge.pipeline import plan_recipe
from tests.checkpoints import write_llama, write_model, write_tensors
from tests.merge.recipes import sliced, whole

Llamas = tuple[Path, Path, Path]


def layered(folder: Path, config: dict[str, Any], *, layers: int = 4, **more: torch.Tensor) -> Path:
    """Returns a checkpoint of layers with nothing much in them, and any config.json."""
    tensors = {f"model.layers.{layer}.weight": torch.ones(2) for layer in range(layers)}
    return write_tensors(folder, {**tensors, **more}, {"num_hidden_layers": layers, **config})


def config_of(recipe: dict[str, Any]) -> dict[str, Any]:
    return dict(plan_recipe(recipe).config)


def test_config_is_that_of_the_base_model(tmp_path: Path) -> None:
    first, base = (layered(tmp_path / name, {"name": name}) for name in ("first", "base"))
    recipe = whole("linear", (first, {"weight": 1}), base_model=base)
    assert config_of(recipe)["name"] == "base"
    del recipe["base_model"]
    assert config_of(recipe)["name"] == "first"


def test_what_is_no_longer_true_is_left_out(tmp_path: Path) -> None:
    stale = {"_name_or_path": "/somewhere", "auto_map": {"AutoConfig": "code.Config"}, "transformers_version": "4.1"}
    model = layered(tmp_path / "model", {**stale, "vocab_size": 7, "rope_theta": 1e6})
    assert config_of(whole("passthrough", model)) == {
        "num_hidden_layers": 4,
        "vocab_size": 7,
        "rope_theta": 1e6,
        "dtype": "float32",
    }


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"torch_dtype": "float16"}, {"torch_dtype": "bfloat16"}),
        ({"dtype": "float16"}, {"dtype": "bfloat16"}),
        ({"torch_dtype": None, "dtype": "float16"}, {"torch_dtype": "bfloat16", "dtype": "bfloat16"}),
        ({}, {"dtype": "bfloat16"}),
        (
            {"dtype": "float32", "text_config": {"dtype": "float32"}, "vision_config": {"torch_dtype": "float32"}},
            {"dtype": "bfloat16", "text_config": {"dtype": "bfloat16"}, "vision_config": {"torch_dtype": "bfloat16"}},
        ),
    ],
)
def test_the_dtype_is_written_under_the_keys_that_the_donor_has(
    tmp_path: Path, stored: dict[str, Any], expected: dict[str, Any]
) -> None:
    config = config_of(whole("passthrough", layered(tmp_path / "model", stored), dtype="bfloat16"))
    assert config == {"num_hidden_layers": 4, **expected}


def test_the_dtype_is_the_one_that_most_elements_have(tmp_path: Path) -> None:
    model = layered(tmp_path / "model", {}, router=torch.ones(9, dtype=torch.float16), steps=torch.ones(99).long())
    assert config_of(whole("passthrough", model))["dtype"] == "float16"


def test_layer_count_and_lists_follow_the_layers_that_the_slices_take(tmp_path: Path) -> None:
    config = {
        "layer_types": ["full", "sliding", "full", "linear"],
        "eos_token_id": [1, 2, 3, 4],
        "text_config": {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]},
    }
    model = layered(tmp_path / "model", config)
    result = config_of(sliced("passthrough", {model: (0, 2)}, {model: (1, 4)}))
    assert result["num_hidden_layers"] == result["text_config"]["num_hidden_layers"] == 5
    assert result["layer_types"] == ["full", "sliding", "sliding", "full", "linear"]
    assert result["text_config"]["no_rope_layers"] == [1, 1, 1, 1, 0]
    assert result["eos_token_id"] == [1, 2, 3, 4]


def test_lists_follow_the_layers_also_where_their_number_stays(tmp_path: Path) -> None:
    model = layered(tmp_path / "model", {"layer_types": ["a", "b", "c", "d"]})
    assert config_of(sliced("passthrough", {model: (2, 4)}, {model: (0, 2)}))["layer_types"] == ["c", "d", "a", "b"]


def test_layers_beyond_those_of_the_donor_begin_its_lists_again(tmp_path: Path) -> None:
    short = layered(tmp_path / "short", {"layer_types": ["a", "b"]}, layers=2)
    tall = layered(tmp_path / "tall", {}, layers=4)
    assert config_of(sliced("passthrough", {short: (0, 2)}, {tall: (1, 4)}))["layer_types"] == ["a", "b", "b", "a", "b"]


def test_a_donor_without_layers_keeps_its_config(tmp_path: Path) -> None:
    donor = write_tensors(tmp_path / "donor", {"weight": torch.ones(2)}, {"ids": []})
    model = layered(tmp_path / "model", {})
    assert config_of(whole("linear", (model, {"weight": 1}), base_model=donor)) == {"ids": [], "dtype": "float32"}


def test_a_head_that_is_written_unties_the_config(tmp_path: Path, llamas: Llamas) -> None:
    tied = write_llama(tmp_path / "tied", seed=9, layers=4, tied=True)
    both = whole("linear", (tied, {"weight": 1}), (llamas[0], {"weight": 1}))
    assert config_of(both)["tie_word_embeddings"] is False
    assert config_of(whole("passthrough", tied))["tie_word_embeddings"] is True


def test_a_nested_text_config_is_untied_too(tmp_path: Path) -> None:
    config = {"text_config": {"tie_word_embeddings": True, "num_hidden_layers": 4}}
    model = layered(tmp_path / "model", config, **{"lm_head.weight": torch.ones(2, 2)})
    result = config_of(whole("passthrough", model))
    assert (result["tie_word_embeddings"], result["text_config"]["tie_word_embeddings"]) == (False, False)


def test_an_architecture_with_lists_over_layers_keeps_them_consistent(tmp_path: Path) -> None:
    config = Gemma2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    model = write_model(tmp_path / "gemma", Gemma2ForCausalLM(config), seed=3)
    stored = json.loads((model / "config.json").read_text())["layer_types"]
    result = config_of(sliced("passthrough", {model: (0, 3)}, {model: (2, 4)}))
    assert result["layer_types"] == [stored[layer] for layer in (0, 1, 2, 2, 3)]
