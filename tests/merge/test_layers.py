from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from hubmerge.merge.layers import (
    LayerStack,
    comes_before_layers,
    find_stacks,
    layer_count_keys,
    layer_index,
    main_stack,
    name_pattern,
    part_in_layer,
    role,
)

LLAMA = LayerStack("model.layers.", 3)
SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
    "pad_token_id": 0,
}
BERT = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
GPT = {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 32}
CLIP = {"image_size": 28, "patch_size": 14, **BERT, "num_hidden_layers": 4}
QWEN_VISION = {"depth": 4, "embed_dim": 16, "num_heads": 2, "hidden_size": 16}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2, "vocab_size": 32}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "vocab_size": 32,
    "pad_token_id": 0,
}


def gemma3n() -> Any:
    return transformers.Gemma3nTextConfig(
        **{**SMALL, "num_hidden_layers": 4}, vocab_size_per_layer_input=32, num_kv_shared_layers=2
    )


def llava() -> Any:
    text, vision = transformers.LlamaConfig(**SMALL), transformers.CLIPVisionConfig(**CLIP)
    return transformers.LlavaConfig(text_config=text, vision_config=vision)


ARCHITECTURES: dict[str, tuple[str, Callable[[], Any], str, int]] = {
    "llama": ("LlamaForCausalLM", lambda: transformers.LlamaConfig(**SMALL), "model.layers.", 3),
    "qwen2": ("Qwen2ForCausalLM", lambda: transformers.Qwen2Config(**SMALL), "model.layers.", 3),
    "qwen3": ("Qwen3ForCausalLM", lambda: transformers.Qwen3Config(**SMALL, head_dim=8), "model.layers.", 3),
    "gemma2": ("Gemma2ForCausalLM", lambda: transformers.Gemma2Config(**SMALL, head_dim=8), "model.layers.", 3),
    "gemma3": ("Gemma3ForCausalLM", lambda: transformers.Gemma3TextConfig(**SMALL, head_dim=8), "model.layers.", 3),
    "gemma3n": ("Gemma3nForCausalLM", gemma3n, "model.layers.", 4),
    "phi3": ("Phi3ForCausalLM", lambda: transformers.Phi3Config(**SMALL), "model.layers.", 3),
    "mixtral": (
        "MixtralForCausalLM",
        lambda: transformers.MixtralConfig(**SMALL, num_local_experts=4),
        "model.layers.",
        3,
    ),
    "gpt2": ("GPT2LMHeadModel", lambda: transformers.GPT2Config(**GPT), "transformer.h.", 3),
    "gpt_neox": ("GPTNeoXForCausalLM", lambda: transformers.GPTNeoXConfig(**BERT), "gpt_neox.layers.", 3),
    "mamba": (
        "MambaForCausalLM",
        lambda: transformers.MambaConfig(hidden_size=16, num_hidden_layers=3, vocab_size=32),
        "backbone.layers.",
        3,
    ),
    "t5": ("T5ForConditionalGeneration", lambda: transformers.T5Config(**T5), "decoder.block.", 2),
    "whisper": (
        "WhisperForConditionalGeneration",
        lambda: transformers.WhisperConfig(**WHISPER),
        "model.decoder.layers.",
        3,
    ),
    "bert": ("BertForMaskedLM", lambda: transformers.BertConfig(**BERT), "bert.encoder.layer.", 3),
    "llava": ("LlavaForConditionalGeneration", llava, "model.language_model.layers.", 3),
    "qwen2_vl": (
        "Qwen2VLForConditionalGeneration",
        lambda: transformers.Qwen2VLConfig(text_config=dict(SMALL), vision_config=QWEN_VISION),
        "model.language_model.layers.",
        3,
    ),
}


def tensors_and_config(architecture: str) -> tuple[list[str], dict[str, Any]]:
    class_name, make_config, _, _ = ARCHITECTURES[architecture]
    config = make_config()
    with torch.device("meta"):
        model = getattr(transformers, class_name)(config)
    return list(model.state_dict()), config.to_dict()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_of_real_architectures_are_found(architecture: str) -> None:
    names, config = tensors_and_config(architecture)
    _, _, prefix, count = ARCHITECTURES[architecture]
    stack = main_stack(names, config)
    assert stack == LayerStack(prefix, count)
    assert {layer_index(name, stack) for name in names} == {*range(count), None}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_real_architectures_have_one_head_behind_the_layers_and_embeddings_before_them(architecture: str) -> None:
    names, config = tensors_and_config(architecture)
    stack = main_stack(names, config)
    heads = [name for name in names if role(name, stack) == "head" and name.endswith(".weight")]
    assert len(heads) == 1
    assert not comes_before_layers(heads[0], stack)
    embeddings = [name for name in names if role(name, stack) == "embed"]
    assert embeddings
    assert all(comes_before_layers(name, stack) for name in embeddings)


def test_a_final_norm_is_behind_the_layers_and_an_embedding_norm_before_them() -> None:
    bert = LayerStack("bert.encoder.layer.", 3)
    assert not comes_before_layers("model.norm.weight", LLAMA)
    assert not comes_before_layers("model.decoder.final_layer_norm.bias", LayerStack("model.decoder.layers.", 2))
    assert not comes_before_layers("cls.predictions.transform.LayerNorm.weight", bert)
    assert comes_before_layers("bert.embeddings.LayerNorm.weight", bert)
    assert comes_before_layers("transformer.word_embeddings_layernorm.weight", LayerStack("transformer.h.", 2))
    assert comes_before_layers("encoder.final_layer_norm.weight", LayerStack("decoder.block.", 2))


def test_position_tables_classifiers_and_towers_have_no_vocabulary() -> None:
    for name in (
        "transformer.wpe.weight",
        "bert.embeddings.token_type_embeddings.weight",
        "model.decoder.embed_positions.weight",
        "score.weight",
        "classifier.out_proj.bias",
        "vision_tower.vision_model.embeddings.patch_embedding.weight",
        "model.visual.blocks.0.norm1.weight",
        "model.multi_modal_projector.linear_1.weight",
        "encoder.block.0.layer.0.layer_norm.weight",
    ):
        assert role(name, LLAMA) == "other", name


def test_a_projector_comes_before_the_layers_and_a_classifier_behind_them() -> None:
    assert comes_before_layers("model.multi_modal_projector.linear_1.weight", LLAMA)
    assert comes_before_layers("transformer.wpe.weight", LayerStack("transformer.h.", 2))
    assert not comes_before_layers("score.weight", LLAMA)
    assert not comes_before_layers("v_head.summary.weight", LLAMA)


def test_names_of_old_checkpoints_are_read() -> None:
    names = [f"language_model.model.layers.{n}.mlp.up_proj.weight" for n in range(2)]
    names += [f"vision_tower.vision_model.encoder.layers.{n}.mlp.fc1.weight" for n in range(5)]
    assert main_stack(names, {"text_config": {"num_hidden_layers": 2}}) == LayerStack("language_model.model.layers.", 2)
    assert main_stack([f"h.{n}.attn.c_attn.weight" for n in range(2)], {}) == LayerStack("h.", 2)
    assert role("output.weight", LayerStack("layers.", 2)) == "head"
    assert role("tok_embeddings.weight", LayerStack("layers.", 2)) == "embed"


def test_a_layer_beyond_the_stated_count_is_none_and_comes_behind() -> None:
    names = [f"model.layers.{n}.mlp.up_proj.weight" for n in range(62)] + ["model.embed_tokens.weight"]
    stack = main_stack(names, {"num_hidden_layers": 61, "num_nextn_predict_layers": 1})
    assert stack == LayerStack("model.layers.", 61)
    assert layer_index("model.layers.61.mlp.up_proj.weight", stack) is None
    assert role("model.layers.61.mlp.up_proj.weight", stack) == "other"
    assert not comes_before_layers("model.layers.61.mlp.up_proj.weight", stack)


def test_without_a_stated_count_the_stack_with_most_tensors_is_the_main_one() -> None:
    names = ["mtp.layers.0.a.weight", *(f"model.layers.{n}.{part}.weight" for n in range(2) for part in "ab")]
    assert main_stack(names, {}) == LayerStack("model.layers.", 2)
    assert main_stack(names, {"num_hidden_layers": "many"}) == LayerStack("model.layers.", 2)


def test_numbers_with_gaps_are_no_stack() -> None:
    assert find_stacks(["visual.merger.mlp.0.weight", "visual.merger.mlp.2.weight"]) == ()
    assert main_stack(["fc.weight"], {"num_hidden_layers": 2}) is None


def test_experts_inside_a_layer_are_no_stack() -> None:
    names = [f"model.layers.{n}.experts.{e}.w1.weight" for n in range(2) for e in range(8)]
    assert find_stacks(names) == (LayerStack("model.layers.", 2),)


def test_the_part_in_a_layer_and_the_layer_s_number_make_the_name_again() -> None:
    assert part_in_layer("model.layers.2.mlp.weight", LLAMA) == "mlp.weight"
    assert LLAMA.name(2, "mlp.weight") == "model.layers.2.mlp.weight"


def test_a_name_outside_the_stack_is_its_own_part() -> None:
    assert part_in_layer("model.norm.weight", LLAMA) == "model.norm.weight"
    assert part_in_layer("model.layers.2.mlp.weight", None) == "model.layers.2.mlp.weight"


def test_a_pattern_has_stars_for_the_numbers_of_layers_and_experts() -> None:
    assert name_pattern("model.layers.31.experts.7.w1.weight") == "model.layers.*.experts.*.w1.weight"
    assert name_pattern("h.0.ln_1.weight") == "h.*.ln_1.weight"


def test_a_number_that_no_model_has_is_not_read_as_one() -> None:
    name = f"model.layers.{'9' * 5000}.weight"
    assert layer_index(name, LLAMA) is None
    assert find_stacks([name]) == ()


def test_layer_count_keys_are_the_count_and_the_lists_of_that_length() -> None:
    config = {
        "architectures": ["A", "B", "C"],
        "eos_token_id": [1, 2, 3],
        "num_hidden_layers": 3,
        "max_window_layers": 3,
        "layer_types": ["full", "full", "sliding"],
        "vision_config": {"num_hidden_layers": 3},
    }
    assert layer_count_keys(config, 3) == (("num_hidden_layers",), ("layer_types",))


def test_layer_count_keys_of_a_nested_language_model() -> None:
    config = {"text_config": {"num_hidden_layers": 4, "layer_types": ["a"] * 4}, "audio_config": {"num_layers": 4}}
    assert layer_count_keys(config, 4) == (("text_config", "num_hidden_layers"), ("text_config", "layer_types"))
    deeper = {"thinker_config": {"text_config": {"num_hidden_layers": 4}}}
    assert layer_count_keys(deeper, 4) == (("thinker_config", "text_config", "num_hidden_layers"),)


def test_of_an_encoder_and_decoder_the_decoder_is_counted() -> None:
    config = {"is_encoder_decoder": True, "num_layers": 6, "num_decoder_layers": 6}
    assert layer_count_keys(config, 6) == (("num_decoder_layers",),)
