"""Tiny checkpoints with random weights, written and read by the real transformers, for any test that needs a parent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import HfApi
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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
    model = LlamaForCausalLM(config)
    _randomize(model, seed=seed)
    model.to(dtype=dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    if tokenizer:
        write_tokenizer(folder, numbered_tokens(vocab))
    return folder


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
    return api.upload_folder(repo_id=repo_id, folder_path=folder).oid


def _randomize(model: LlamaForCausalLM, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
