"""Operands in memory, and settings from a method's own defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hubmerge.merge.methods.method import Block, Method, Scope, Settings, Value, blocks_of


@dataclass
class TensorOperands:
    """Whole tensors of one shape, the base first; `loaded` notes every block that was asked for."""

    tensors: Sequence[Tensor]
    has_base: bool = True
    name: str = "model.layers.0.mlp.up_proj.weight"
    seed: int = 0
    loaded: list[Block] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensors[0].shape)

    @property
    def blocks(self) -> Sequence[Block]:
        return blocks_of(self.shape)

    def load(self, block: Block) -> list[Tensor]:
        self.loaded.append(block)
        wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in self.tensors) else torch.float32
        return [tensor.flatten()[block.start : block.stop].to(wide, copy=True) for tensor in self.tensors]

    def stored(self, block: Block) -> list[Tensor] | None:
        """Gives nothing, so that the torch kernels run."""
        return None


def settings_for(method: Method, inputs: int, **values: Value | Sequence[Value]) -> Settings:
    """Returns the defaults with `values` over them: a sequence gives each input its own; a missing weight is 1."""
    unstated: Mapping[str, Value] = {"weight": 1.0, "t": 0.5}
    shared: dict[str, Value] = {}
    columns: list[dict[str, Value]] = [{} for _ in range(inputs)]
    for parameter in method.parameters:
        key = parameter.name
        value = values.pop(key, unstated.get(key) if parameter.default is None else parameter.default)
        if parameter.scope is Scope.SHARED:
            shared[key] = value
            continue
        each = value if isinstance(value, Sequence) else [value] * inputs
        for column, own in zip(columns, each, strict=True):
            column[key] = own
    assert not values, f"{method.name} has no {sorted(values)}"
    return Settings(shared, tuple(columns))


def merge(
    method: Method,
    tensors: Sequence[Tensor],
    settings: Settings,
    *,
    name: str = "model.layers.0.mlp.up_proj.weight",
    seed: int = 0,
    blocks_backwards: bool = False,
) -> Tensor:
    """Merges whole tensors as the engine does, block by block."""
    operands = TensorOperands(tensors, len(tensors) > len(settings.inputs), name, seed)
    state = method.prepare(operands, settings) if method.prepare else None
    blocks = list(operands.blocks)
    results = {
        block: method.combine(operands.load(block), settings, state, block)
        for block in (reversed(blocks) if blocks_backwards else blocks)
    }
    return torch.cat([results[block] for block in blocks] or [torch.empty(0)]).reshape(operands.shape)
