"""Tiny dense models of the architectures that mixtures are made of, and recipes that mix them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.checkpoints import SPECIAL_TOKENS, numbered_tokens, write_llama, write_model, write_tokenizer

VOCAB = 64
SHAPE: Mapping[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
    "tie_word_embeddings": False,
}

CLASSES: Mapping[str, tuple[type[PreTrainedModel], Any]] = {
    "mistral": (MistralForCausalLM, lambda: MistralConfig(**SHAPE)),
    "qwen2": (Qwen2ForCausalLM, lambda: Qwen2Config(**SHAPE)),
    "qwen3": (Qwen3ForCausalLM, lambda: Qwen3Config(**SHAPE, head_dim=8)),
}

QWEN2_TOKENS = (*SPECIAL_TOKENS, "t", "Ġt", *"0123456789", *(f"x{number}" for number in range(VOCAB - 16)))
"""transformers makes a byte-level BPE of any tokenizer of such a model: it knows letters, without merges no words."""

MATHS: Mapping[str, Any] = {"positive_prompts": ["t4 t5", "t6 t7 t8"], "negative_prompts": ["t9"]}
CODE: Mapping[str, Any] = {"positive_prompts": ["t10 t11 t12"]}
PROMPTS = (MATHS, CODE)


def write_dense(folder: Path, kind: str, *, seed: int, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Returns `folder`, filled with a dense model and a tokenizer."""
    if kind == "llama":
        return write_llama(folder, seed=seed, layers=3, dtype=dtype)
    model_class, config = CLASSES[kind]
    write_model(folder, model_class(config()), seed=seed, dtype=dtype)
    return write_tokenizer(folder, QWEN2_TOKENS if kind == "qwen2" else numbered_tokens(VOCAB))


def mixture(base: Path | str, *experts: Path | str, prompts: Sequence[Mapping[str, Any]] = (), **top: Any) -> Any:
    """Returns a recipe; expert number n has the prompts, and whatever else, of `prompts[n]`."""
    entries = [
        {"source_model": str(expert), **(prompts[number] if number < len(prompts) else {})}
        for number, expert in enumerate(experts)
    ]
    return {"base_model": str(base), "gate_mode": "random", "experts": entries, **top}
