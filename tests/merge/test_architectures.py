"""Merges of real architectures: whatever transformers writes is merged to what it loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from tests.checkpoints import write_model
from tests.merge.merging import merged
from tests.merge.recipes import sliced, whole

SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
GROUPED = {**SMALL, "num_key_value_heads": 1}
GPT = {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 32}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 2, "vocab_size": 32}
MOE = {**GROUPED, "num_local_experts": 4, "tie_word_embeddings": False}
MROPE = {"rope_type": "default", "mrope_section": [2, 1, 1]}
QWEN_VISION = {"depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 16, "patch_size": 4, "mlp_ratio": 1}


def llava() -> PreTrainedModel:
    vision = transformers.CLIPVisionConfig(**{**SMALL, "num_hidden_layers": 2}, image_size=28, patch_size=14)
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(text_config=transformers.LlamaConfig(**GROUPED), vision_config=vision)
    )


def qwen2_vl() -> PreTrainedModel:
    text = {**GROUPED, "rope_parameters": MROPE}
    return transformers.Qwen2VLForConditionalGeneration(
        transformers.Qwen2VLConfig(text_config=text, vision_config=QWEN_VISION)
    )


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "tied llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED, tie_word_embeddings=True)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT)),
    "mixtral": lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(**MOE)),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**GROUPED, head_dim=8)),
    "mamba": lambda: transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=3)
    ),
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)),
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
    "llava": llava,
    "qwen2-vl": qwen2_vl,
}

Siblings = tuple[PreTrainedModel, Path, Path]


@pytest.fixture(params=MODELS)
def siblings(request: pytest.FixtureRequest, tmp_path: Path) -> Siblings:
    """Returns a model and two checkpoints of its architecture with other weights, in fp32."""
    model = MODELS[request.param]()
    folders = [write_model(tmp_path / str(seed), model, seed=seed, dtype=torch.float32) for seed in (1, 2)]
    return model, *folders


def loaded(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    result, report = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return result


def test_a_mean_is_loaded_as_the_mean_of_every_weight(siblings: Siblings, tmp_path: Path) -> None:
    model, first, second = siblings
    merged(whole("linear", (first, {"weight": 0.5}), (second, {"weight": 0.5})), tmp_path / "out")
    a, b, result = (loaded(model, folder).state_dict() for folder in (first, second, tmp_path / "out"))
    assert result.keys() == a.keys()
    for name, tensor in result.items():
        expected = (a[name] + b[name]) / 2 if tensor.is_floating_point() else a[name]
        assert torch.equal(tensor, expected), name


def test_stacked_layers_load_as_a_taller_model(siblings: Siblings, tmp_path: Path) -> None:
    model, first, second = siblings
    merged(sliced("passthrough", {first: (0, 2)}, {second: (1, 3)}), tmp_path / "out")
    assert len(loaded(model, tmp_path / "out").state_dict()) > len(model.state_dict())
