"""Prompts as the base's tokenizer sees them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubmerge.errors import SourceError
from hubmerge.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenizedPrompts:
    """Every prompt of a mixture once in one batch, filled up on the left.

    Attributes:
        ids: `(prompts, tokens)`.
        mask: `(prompts, tokens)`, 1.0 for tokens and 0.0 for filling.
        experts: For each expert which prompts are its positive and which its negative ones.
    """

    ids: Tensor
    mask: Tensor
    experts: tuple[tuple[list[int], list[int]], ...]


def tokenize(
    prompts: Sequence[tuple[tuple[str, ...], tuple[str, ...]]], tokenizer_files: Mapping[str, bytes]
) -> TokenizedPrompts:
    """Returns the prompts' ids, each after the token that begins a text if there is one, without other specials.

    Args:
        prompts: For each expert those that are for it and those that are not.
        tokenizer_files: Everything that transformers looks at to choose and make a tokenizer, config.json included.

    Raises:
        SourceError: The files are no tokenizer that transformers can use.
    """
    texts = list(dict.fromkeys(text for pair in prompts for side in pair for text in side))
    tokenizer = _tokenizer(tokenizer_files)
    beginning = tokenizer.bos_token or ""
    rows: list[list[int]] = [tokenizer(beginning + text, add_special_tokens=False)["input_ids"] for text in texts]
    if empty := next((text for text, row in zip(texts, rows, strict=True) if not row), None):
        raise SourceError(f"the base's tokenizer makes no token of the prompt {empty!r}")
    length = max(map(len, rows))
    place = {text: number for number, text in enumerate(texts)}
    return TokenizedPrompts(
        ids=torch.tensor([[0] * (length - len(row)) + row for row in rows]),
        mask=torch.tensor([[0.0] * (length - len(row)) + [1.0] * len(row) for row in rows]),
        experts=tuple(
            ([place[text] for text in positive], [place[text] for text in negative]) for positive, negative in prompts
        ),
    )


def _tokenizer(files: Mapping[str, bytes]) -> Any:
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="hubmerge-tokenizer-") as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise SourceError(f"transformers cannot use the base's tokenizer: {error}") from error
