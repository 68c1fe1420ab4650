"""Pairs of tiny models, and adapters made of their difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from hubmerge.extract.factors import RankRule
from hubmerge.extract.parts import Choice
from hubmerge.extract.plan import ExtractOptions
from hubmerge.extract.run import Extracted, extract_lora
from hubmerge.merge.stream import StreamOptions
from tests.adapters import ADAPTER_FILE, load, logits
from tests.checkpoints import read_tensors, write_changed
from tests.merge.merging import merged
from tests.merge.recipes import whole

WHOLE = Choice(save_norms=True)


def extracted(
    finetuned: Path,
    base: Path,
    folder: Path,
    *,
    rank: int = 32,
    energy: float | None = None,
    threads: int = 2,
    **options: Any,
) -> Extracted:
    """Returns what was made of two models, in `folder`."""
    made = ExtractOptions(rule=RankRule(rank, energy), stream=StreamOptions(threads=threads), **options)
    return extract_lora(str(finetuned), str(base), folder, options=made)


def with_peft(base: Path, adapter: Path, *, rows: int | None = None) -> Tensor:
    """Returns the logits of a base with its adapter, the vocabulary resized first where that is asked for."""
    model = load(base)
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return logits(PeftModel.from_pretrained(model, adapter))


def with_hubmerge(base: Path, adapter: Path, folder: Path) -> dict[str, Tensor]:
    """Returns the tensors of a merge of both, which is left in `folder`."""
    return merged(whole("passthrough", Path(f"{base}+{adapter}")), folder)


def write_finetuned(folder: Path, base: Path, *, rank: int, names: tuple[str, ...] = ("_proj",)) -> Path:
    """Returns a copy of a model whose matrices of these names have changed by a matrix of that rank."""
    generator = torch.Generator().manual_seed(11)
    changes = {
        name: tensor + _low_rank(tensor.shape, rank, generator).to(tensor.dtype)
        for name, tensor in read_tensors(base).items()
        if any(each in name for each in names) and tensor.dim() == 2
    }
    return write_changed(folder, base, changes)


def config_of(adapter: Path) -> dict[str, Any]:
    return json.loads((adapter / "adapter_config.json").read_text())


def factors_of(adapter: Path) -> dict[str, Tensor]:
    return load_file(adapter / ADAPTER_FILE)


def _low_rank(shape: tuple[int, ...], rank: int, generator: torch.Generator) -> Tensor:
    rows, columns = shape
    return 0.1 * torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)
