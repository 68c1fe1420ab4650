"""Counts the tensors of a DPO training step without a GPU and without weights, beside what the budget predicts.

The real code of transformers, peft, bitsandbytes and TRL runs on tensors that have shapes but no data; every storage is
counted while it lives. Not seen are what happens inside kernels, the allocator's fragmentation and the context of CUDA:
this is a simulation of the tensors, not a measurement of a GPU.

    python scripts/simulate_dpo_memory.py              # the table of docs/dpo.md, about ten minutes on two cores
    python scripts/simulate_dpo_memory.py mistral-7b 1024 2048
"""

from __future__ import annotations

import os
import sys
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import bitsandbytes as bnb
import torch
import transformers
from bitsandbytes.functional import QuantState
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config
from trl import DPOConfig, DPOTrainer
from trl.kernels import chunked_logprob
from trl.trainer.utils import add_fused_lm_head

from hubmerge.trainer.budget import GIB, Budget, Calculator
from hubmerge.trainer.settings import OPTIMIZER_STATE_BYTES, LoraShape
from hubmerge.trainer.shape import shape_from

CPU = torch.device("cpu")
OPTIMIZER = "adamw_8bit"

MODELS: dict[str, PretrainedConfig] = {
    "mistral-7b": MistralConfig(sliding_window=None),
    "llama-3-8b": LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_key_value_heads=8, vocab_size=128256
    ),
    "qwen2.5-7b": Qwen2Config(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
    ),
    "llama-2-13b": LlamaConfig(
        hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40, vocab_size=32000
    ),
}
LENGTHS = (1024, 2048, 4096)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and counts what it returns; what would need values gets some."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0.5 if args[0].dtype.is_floating_point else 1
        if func is torch.ops.aten.index.Tensor and args[1][0].dtype == torch.bool:
            out = _all_rows(args[0], args[1][0])
        else:
            out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size_bytes: int) -> None:
        self.live -= size_bytes


@dataclass(frozen=True)
class OneProcess:
    """What the training step asks of an accelerator where there is one process; its metrics are not looked at."""

    device: torch.device = CPU

    def gather(self, values: Tensor) -> Tensor:
        """Returns some values in place of those of all processes."""
        return torch.zeros(1)

    gather_for_metrics = gather

    def unwrap_model(self, model: nn.Module) -> nn.Module:
        """Returns the model."""
        return model


@dataclass
class StepState:
    """The attributes that DPOTrainer's step reads, as its constructor would set them for one GPU and a LoRA adapter."""

    model: nn.Module
    args: DPOConfig
    accelerator: OneProcess = field(default_factory=OneProcess)
    ref_model: None = None
    aux_loss_enabled: bool = False
    ld_alpha: None = None
    precompute_ref_logps: bool = False
    beta: float = 0.1
    loss_types: tuple[str, ...] = ("sigmoid",)
    loss_weights: tuple[float, ...] = (1.0,)
    label_smoothing: float = 0.0
    f_divergence_type: str = "reverse_kl"
    use_weighting: bool = False
    _metrics: dict[str, Any] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    _total_train_tokens: int = 0
    _tp_size: int = 1


def simulated_peak(config: PretrainedConfig, *, quant: str, tokens: int, batch_size: int, lora: LoraShape) -> int:
    """Returns the peak bytes of tensors in a step on pairs of two sequences of `tokens` tokens."""
    model = _model(config, quant=quant, lora=lora)
    state = StepState(model, DPOConfig(output_dir=tempfile.gettempdir(), bf16=True, use_cpu=True))
    trainer = DPOTrainer.__new__(DPOTrainer)
    trainer.__dict__.update(vars(state))
    with _as_on_cuda(), FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        _give_storage(model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        state_bytes = OPTIMIZER_STATE_BYTES[OPTIMIZER]
        moments = [torch.empty(round(each.numel() * state_bytes), dtype=torch.uint8) for each in trained]
        for each in trained:
            each.grad = torch.empty_like(each)
        ones = torch.ones(2 * batch_size, tokens, dtype=torch.long)
        batch = {"input_ids": torch.zeros_like(ones), "attention_mask": ones, "completion_mask": torch.ones_like(ones)}
        live.peak = live.live
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = trainer._compute_loss(model, batch, False)
        loss.backward()
        assert moments, "the optimizer's state lives through the step"
        return live.peak


def predicted(config: PretrainedConfig, *, quant: str, tokens: int, batch_size: int, lora: LoraShape) -> Budget:
    """Returns the budget of the same step."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return Calculator(shape_from(shapes, config.to_dict()), lora, OPTIMIZER).budget(quant, tokens, batch_size)


def _model(config: PretrainedConfig, *, quant: str, lora: LoraShape) -> nn.Module:
    """Returns the model with its adapter, all without storage."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.requires_grad_(False)
        if quant == "nf4":
            _use_four_bits(model)
        add_fused_lm_head(model, outputs=("entropy", "mean_logits", "is_top1"))
        model.gradient_checkpointing_enable({"use_reentrant": False})
        peft_config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted = get_peft_model(model, peft_config)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return adapted.train()


def _use_four_bits(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and name != "lm_head":
                size = (child.in_features, child.out_features)
                frozen = bnb.nn.Linear4bit(*size, bias=child.bias is not None, compute_dtype=torch.bfloat16)
                setattr(parent, name, frozen.requires_grad_(requires_grad=False))
    model.is_loaded_in_4bit = True


def _give_storage(model: nn.Module) -> None:
    """Replaces every tensor by one of the kind that has a storage of the right size and no data."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else torch.empty(buffer.shape, dtype=buffer.dtype)
        for name, weight in module._parameters.items():
            if isinstance(module, bnb.nn.Linear4bit) and name == "weight":
                module._parameters[name] = _four_bit_weight(module)
            elif weight is not None:
                empty = torch.empty(weight.shape, dtype=weight.dtype)
                module._parameters[name] = nn.Parameter(empty, requires_grad=weight.requires_grad)


def _four_bit_weight(module: Any) -> nn.Parameter:
    count = module.in_features * module.out_features
    scales = QuantState(absmax=torch.empty(-(-count // 64 // 256)), code=torch.empty(256), blocksize=256)
    scales.dtype = torch.float32
    weight = nn.Parameter(torch.empty((count // 2, 1), dtype=torch.uint8), requires_grad=False)
    weight.quant_state = module.quant_state = QuantState(  # type: ignore[attr-defined]  # as bitsandbytes does
        absmax=torch.empty(count // 64, dtype=torch.uint8),
        shape=torch.Size((module.out_features, module.in_features)),
        dtype=torch.bfloat16,
        blocksize=64,
        code=torch.empty(16),
        quant_type="nf4",
        offset=torch.empty(()),
        state2=scales,
    )
    module.compute_type_is_set = True
    return weight


@contextmanager
def _as_on_cuda() -> Iterator[None]:
    """Lets the CPU take the paths of CUDA: kernels of the fused head that need no memory, and autocast switched on."""
    enabled = torch.is_autocast_enabled
    with (
        mock.patch.object(chunked_logprob, "_forward_tile", _nothing),
        mock.patch.object(chunked_logprob, "_backward_tile", _nothing),
        mock.patch.object(chunked_logprob, "_addmm_fp32", _nothing),
        mock.patch.object(torch, "is_autocast_enabled", lambda device="cpu": enabled(device)),
    ):
        yield


def _nothing(*_: Any, **__: Any) -> None:
    """Stands for a kernel that works in place; a mock would keep its arguments alive."""


def _all_rows(values: Tensor, mask: Tensor) -> Tensor:
    """Returns what a mask would choose if it chose everything: how much it chooses is not known without values."""
    return values.new_empty((mask.numel(), *values.shape[mask.dim() :]))


def compare(name: str, *, quant: str, tokens: int, batch_size: int = 1) -> str:
    """Returns a line of the table in docs/dpo.md."""
    case: dict[str, Any] = {"quant": quant, "tokens": tokens, "batch_size": batch_size, "lora": LoraShape()}
    simulated, budget = simulated_peak(MODELS[name], **case), predicted(MODELS[name], **case)
    error = budget.tensors / simulated - 1
    held = {"nf4": "NF4", "none": "bf16"}[quant]
    sizes = f"{simulated / GIB:.2f} | {budget.tensors / GIB:.2f} | {error:+.1%} | {budget.total / GIB:.1f}"
    return f"| {name} | {held} | {tokens:,} | {batch_size} | {sizes} |"


def main() -> None:
    transformers.logging.set_verbosity_error()
    print("| model | weights | tokens | batch | simulated GiB | budget GiB | error | with overhead |", flush=True)
    print("|---|---|---|---|---|---|---|---|", flush=True)
    if len(sys.argv) > 1:
        for tokens in map(int, sys.argv[2:] or LENGTHS):
            print(compare(sys.argv[1], quant="nf4", tokens=tokens), flush=True)
        return
    for name in MODELS:
        for tokens in LENGTHS:
            print(compare(name, quant="nf4", tokens=tokens), flush=True)
        print(compare(name, quant="none", tokens=2048), flush=True)
    print(compare("mistral-7b", quant="nf4", tokens=1536, batch_size=4), flush=True)


if __name__ == "__main__":
    main()
