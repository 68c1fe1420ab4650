"""Checkpoints of a few bytes, written without torch, for tests of what surrounds the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubmerge.weights.header import build_header

CONFIG = {"model_type": "llama", "num_hidden_layers": 1}
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


def safetensors_file(names: Sequence[str], *, dtype: str = "BF16", shape: tuple[int, ...] = (2, 2)) -> bytes:
    """Returns a file of zeros."""
    header, infos = build_header([(name, dtype, shape) for name in names])
    return header + bytes(infos[-1].stop - len(header) if infos else 0)


def write_checkpoint(
    folder: Path,
    weights: Mapping[str, Sequence[str] | bytes],
    *,
    weight_map: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = CONFIG,
    card: str | None = None,
) -> Path:
    """Returns `folder` with a file of weights for each name: tensors of zeros by name, or the bytes given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in weights.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else safetensors_file(content))
    if weight_map is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


def write_adapter_files(
    folder: Path, *, names: Sequence[str] = ("q.lora_A.weight", "q.lora_B.weight"), config: Mapping[str, Any] = ADAPTER
) -> Path:
    """Returns `folder` with an adapter in peft's format: factors of zeros by name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(safetensors_file(names))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
