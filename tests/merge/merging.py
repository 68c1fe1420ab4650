"""Runs merges into folders, and compares what comes out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.merge.plan import DEFAULT_SHARD_BYTES
from hubmerge.merge.progress import Silent
from hubmerge.merge.stream import StreamOptions
from tests.checkpoints import read_tensors

WEIGHTS_ONLY = MergeOptions(lineage=False, diagnostics=False)
"""Other tests look at what the card says of the weights, which takes longer than to merge tiny ones."""

_AS_INTEGERS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32}


def merged(
    recipe: dict[str, Any] | str, folder: Path, *, threads: int = 2, shard_bytes: int = DEFAULT_SHARD_BYTES
) -> dict[str, Tensor]:
    """Returns the tensors of a merge that is left in `folder`."""
    merge_to_folder(
        recipe,
        folder,
        options=MergeOptions(shard_bytes=shard_bytes, stream=StreamOptions(threads=threads), diagnostics=False),
    )
    return read_tensors(folder)


def hashes(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    """Returns the SHA-256 of every file, by its path in the folder."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def ulps(one: Tensor, other: Tensor) -> int:
    """Returns how many numbers of the dtype lie at most between two tensors' elements."""
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    distance = (_rank(one) - _rank(other)).abs()
    return int(distance.max()) if distance.numel() else 0


def _rank(values: Tensor) -> Tensor:
    """Numbers the floats of a dtype in ascending order, both zeros as 0."""
    bits = values.contiguous().view(_AS_INTEGERS[values.dtype]).long()
    highest = torch.iinfo(_AS_INTEGERS[values.dtype]).max
    return torch.where(bits < 0, -(bits & highest), bits)


def metadata_of(folder: Path) -> dict[str, Any]:
    """Returns the front matter of the card of a merge."""
    return dict(yaml.safe_load((folder / "README.md").read_text().split("---")[1]))


class Heard(Silent):
    """A Progress that keeps what it is told in sentences."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        """Keeps it."""
        self.sentences.append(sentence)
