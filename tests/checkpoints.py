"""Tiny checkpoints with random weights, written and read by the real transformers, for any test that needs a parent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

CARD = "---\nlicense: apache-2.0\n---\n"
"""Of every model that has no other: what has no licence is not published."""

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")


def write_llama(
    folder: Path,
    *,
    seed: int,
    layers: int = 2,
    hidden: int = 16,
    vocab: int = 64,
    dtype: torch.dtype = torch.bfloat16,
    tied: bool = False,
    tokenizer: bool = True,
    max_shard_size: int | str = "5GB",
) -> Path:
    """Returns `folder`, filled with a Llama of normally distributed weights that depend on nothing but the arguments.

    The attention has 4 query heads and 2 key-value heads, the MLP is `(2 * hidden, hidden)`. Norm weights are random
    as well, so that a merge which skips them is seen. With a `max_shard_size` below the model's size there is an index.
    """
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    write_model(folder, LlamaForCausalLM(config), seed=seed, dtype=dtype, max_shard_size=max_shard_size)
    if tokenizer:
        write_tokenizer(folder, numbered_tokens(vocab))
    (folder / "README.md").write_text(CARD)
    return folder


def write_model(
    folder: Path,
    model: PreTrainedModel,
    *,
    seed: int,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_size: int | str = "5GB",
) -> Path:
    """Returns `folder`, filled with a model of any architecture, its weights replaced by normally distributed ones."""
    _randomize(model, seed=seed)
    model.to(dtype=dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> Path:
    """Returns `folder`, filled with these weights in one file and a config.json; for what no architecture writes."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} if config is None else config))
    return folder


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Returns every tensor of a checkpoint."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def write_changed(folder: Path, source: Path, changes: Mapping[str, Tensor | None]) -> Path:
    """Returns `folder`, a copy of the checkpoint `source` with tensors replaced, added or, for None, removed."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    changed = {**read_tensors(source), **changes}
    kept = {name: tensor for name, tensor in changed.items() if tensor is not None}
    return write_tensors(folder, kept, json.loads((source / "config.json").read_text()))


def numbered_tokens(vocab: int) -> list[str]:
    """Returns the special tokens, then `t4`, `t5`, ... up to `vocab` tokens in all, each at the row of its number."""
    return [*SPECIAL_TOKENS, *(f"t{row}" for row in range(len(SPECIAL_TOKENS), vocab))]


def write_tokenizer(folder: Path, tokens: Sequence[str]) -> Path:
    """Returns `folder`, with a tokenizer of words split at white space; a token's id is its place in `tokens`.

    `tokens` begins with the special tokens; a vocabulary in another order or with other words makes another tokenizer.
    """
    backend = Tokenizer(models.WordLevel({token: row for row, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


def push_folder(hub_token: str, repo_id: str, folder: Path, *, private: bool = False) -> str:
    """Returns the commit SHA of `folder` uploaded to the model repo, which is made first where it does not exist."""
    api = HfApi(token=hub_token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    if not (folder / "README.md").exists():
        (folder / "README.md").write_text(CARD)
    return api.upload_folder(repo_id=repo_id, folder_path=folder).oid


def _randomize(model: PreTrainedModel, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
