"""Tiny models with real tokenizers, trained on the spot by the tokenizers library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.checkpoints import write_llama

ENGLISH = ["the cat sat on the mat", "the dog and the cat ran", "a mat for the dog to sit on", "cats and dogs run"] * 3
GERMAN = ["die Katze sitzt auf der Matte", "der Hund und die Katze rennen", "Hunde sitzen auf Matten"] * 3
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]


def bpe(texts: Sequence[str], *, size: int = 90, added: Sequence[str] = ()) -> Tokenizer:
    """Returns a byte-level BPE tokenizer that puts `<s>` before a text; `added` are special tokens behind the rest."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted({letter for text in (*ENGLISH, *GERMAN) for letter in text.replace(" ", "Ġ")})
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return _finished(tokenizer, added)


def unigram(texts: Sequence[str], *, size: int = 70, added: Sequence[str] = ()) -> Tokenizer:
    """Returns a Unigram tokenizer in the manner of sentencepiece."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return _finished(tokenizer, added)


def wordpiece(texts: Sequence[str], *, size: int = 70, added: Sequence[str] = ()) -> Tokenizer:
    """Returns a WordPiece tokenizer of BERT's kind."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return _finished(tokenizer, added)


def write_tokenized(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    seed: int,
    padding: int = 0,
    template: str | None = None,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Returns `folder`, with a Llama that has a row for each token and `padding` more."""
    rows = max(tokenizer.get_vocab().values()) + 1 + padding
    write_llama(folder, seed=seed, vocab=rows, dtype=dtype, tokenizer=False, tied=tied)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


def edit_json(folder: Path, name: str, **changes: object) -> None:
    """Changes members of a JSON file of a model."""
    path = folder / name
    members = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**members, **changes}))


def _finished(tokenizer: Tokenizer, added: Sequence[str]) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer
