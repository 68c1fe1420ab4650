"""Tiny models of real architectures, by transformers' own classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
GROUPED = {**SMALL, "num_key_value_heads": 1}
GEMMA = {**GROUPED, "head_dim": 8}
GPT = {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 32}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2, "vocab_size": 32}
EXPERTS = {"tie_word_embeddings": False, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
QWEN_MOE = {**GROUPED, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 8}
MROPE = {"rope_type": "default", "mrope_section": [2, 1, 1]}
QWEN_VISION = {"depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 16, "patch_size": 4, "mlp_ratio": 1}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def llama(**changes: Any) -> PreTrainedModel:
    """Returns a Llama that is untied unless told otherwise."""
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**GROUPED, **changes}))


def llava(*, layers: int = 3, vision_layers: int = 2) -> PreTrainedModel:
    """Returns a Llama with eyes; its checkpoint names the layers `language_model.model.layers.`."""
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            text_config=transformers.LlamaConfig(**{**GROUPED, "num_hidden_layers": layers}),
            vision_config=transformers.CLIPVisionConfig(**{**VISION, "num_hidden_layers": vision_layers}),
        )
    )


def qwen2_vl() -> PreTrainedModel:
    """Returns a Qwen2-VL; its checkpoint names the layers as Qwen2's does, `model.layers.`."""
    text = {**GROUPED, "rope_parameters": MROPE, "tie_word_embeddings": False}
    return transformers.Qwen2VLForConditionalGeneration(
        transformers.Qwen2VLConfig(text_config=text, vision_config=QWEN_VISION, tie_word_embeddings=False)
    )


def gemma3_vl() -> PreTrainedModel:
    """Returns a tied Gemma 3 with eyes; its checkpoint names the layers `language_model.model.layers.`."""
    return transformers.Gemma3ForConditionalGeneration(
        transformers.Gemma3Config(text_config=dict(GEMMA), vision_config=dict(VISION), mm_tokens_per_image=4)
    )


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "tied llama": lambda: llama(tie_word_embeddings=True),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**GROUPED)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**GROUPED)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**GEMMA)),
    "gemma2": lambda: transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**GEMMA)),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**GEMMA)),
    "phi3": lambda: transformers.Phi3ForCausalLM(transformers.Phi3Config(**GROUPED)),
    "mixtral": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**GROUPED, num_local_experts=4, tie_word_embeddings=False)
    ),
    "qwen2-moe": lambda: transformers.Qwen2MoeForCausalLM(transformers.Qwen2MoeConfig(**QWEN_MOE)),
    "qwen3-moe": lambda: transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(**GEMMA, **EXPERTS, num_experts=4)
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT)),
    "gpt-neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SMALL)),
    "mamba": lambda: transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=3)
    ),
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)),
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
    "llava": llava,
    "gemma3-vl": gemma3_vl,
    "qwen2-vl": qwen2_vl,
}


def logits_of(model: PreTrainedModel) -> Tensor:
    """Returns what a model says to three tokens."""
    tokens = torch.tensor([[4, 5, 6]])
    given = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        logits: Tensor = model.eval()(input_ids=tokens, **given).logits
    return logits
