"""Tiny adapters with random factors, written and merged by the real peft, for any test that puts one on a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


def write_adapter(folder: Path, base: Path, *, seed: int = 0, auto: Any = AutoModelForCausalLM, **config: Any) -> Path:
    """Returns `folder`, filled with an adapter of peft's LoraConfig(**config); all that it trains is random."""
    torch.manual_seed(seed)
    model = get_peft_model(load(base, auto=auto), LoraConfig(init_lora_weights=False, **config))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, adapter: Path, folder: Path, *, auto: Any = AutoModelForCausalLM) -> dict[str, Tensor]:
    """Returns the tensors of what peft's merge_and_unload makes of the two, as transformers stores it in `folder`."""
    model = PeftModel.from_pretrained(load(base, auto=auto), adapter).merge_and_unload()
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def logits(model: PreTrainedModel | PeftModel) -> Tensor:
    """Returns what the model says to one fixed text of ids below 32."""
    with torch.inference_mode():
        return model.eval()(input_ids=torch.arange(4, 20)[None]).logits


def load(folder: Path, *, auto: Any = AutoModelForCausalLM) -> PreTrainedModel:
    """Returns the model in fp32."""
    return auto.from_pretrained(folder, dtype=torch.float32)


def change_config(adapter: Path, changes: Mapping[str, Any]) -> None:
    """Sets keys of adapter_config.json."""
    path = adapter / CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(adapter: Path, changes: Mapping[str, Tensor | None]) -> None:
    """Sets tensors of the adapter; None takes one away."""
    tensors = {**load_file(adapter / ADAPTER_FILE), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, adapter / ADAPTER_FILE)


def rename_tensors(adapter: Path, old: str, new: str) -> None:
    """Replaces text in the names of all tensors."""
    tensors = {name.replace(old, new): tensor for name, tensor in load_file(adapter / ADAPTER_FILE).items()}
    save_file(tensors, adapter / ADAPTER_FILE)
