"""How much of a wanted change is left in stored weights.

Survival is the projection of the stored change on the wanted one, ⟨S − W, Δ⟩ / ⟨Δ, Δ⟩: 1 where rounding took nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hubmerge.lazy_torch import torch
from hubmerge.merge.evaluate import evaluate
from hubmerge.merge.expr import AddLora, Dithered, Expr, Load
from hubmerge.merge.layers import layer_index, main_stack, part_in_layer
from hubmerge.merge.nodes import Bytes
from hubmerge.merge.pipeline import OpenMerge
from hubmerge.merge.plan import OutputTensor, Plan
from hubmerge.merge.read_ahead import ReadAhead
from hubmerge.weights.dtypes import FLOAT_NAMES
from hubmerge.weights.header import item_size


@dataclass
class _Sums:
    """Of one role, over all elements."""

    along: float = 0.0
    wanted: float = 0.0
    weight: float = 0.0


@dataclass(frozen=True)
class Survival:
    """What is left of the wanted change.

    Attributes:
        overall: Over all changed weights.
        by_role: Over those of one place in the layers: `self_attn.q_proj`.
        relative_size: ‖Δ‖ / ‖W‖ of the changed weights.
    """

    overall: float
    by_role: Mapping[str, float] = field(default_factory=dict)
    relative_size: float = 0.0


def survival(merge: OpenMerge, folder: Path) -> Survival:
    """Returns what is left of an adapter in the folder that its merge was written to; one streaming pass.

    Args:
        merge: Of a recipe with `lora`.
        folder: Holds its result.
    """
    changed = list(_changed(merge.plan))
    stack = main_stack({tensor.info.name: tensor for tensor in merge.plan.tensors}, merge.plan.config)
    sums: dict[str, _Sums] = defaultdict(_Sums)
    files = [checkpoint.files for checkpoint in merge.checkpoints]
    stream = merge.options.stream
    exprs = [expr.weight for _, _, expr in changed]
    with ReadAhead(
        files,
        exprs,
        budget_bytes=stream.read_ahead_bytes,
        connections=stream.connections,
        on_read=lambda _: None,
    ) as read_ahead:
        for number, (tensor, filename, expr) in enumerate(changed):
            delta = _delta(expr, merge)
            stored = np.memmap(folder / filename, np.uint8, "r")[tensor.info.start : tensor.info.stop]
            place = _role(tensor.info.name, stack)
            for block, weight in evaluate(expr.weight, dtype="F32", source=read_ahead.source(number)):
                item = item_size(tensor.info.dtype)
                now = _floats(stored[block.start * item : block.stop * item], tensor.info.dtype)
                _add(sums[place], _floats(weight, "F32"), now, delta[block.start : block.stop])
            read_ahead.release(number, expr.weight)
    return _survival(sums)


def _changed(plan: Plan) -> Iterator[tuple[OutputTensor, str, AddLora]]:
    for shard in plan.shards:
        for tensor in shard.tensors:
            expr = _adapted(tensor.expr)
            if expr is not None:
                yield tensor, shard.filename, expr


def _adapted(expr: Expr) -> AddLora | None:
    inner = expr.value if isinstance(expr, Dithered) else expr
    return inner if isinstance(inner, AddLora) else None


def _delta(expr: AddLora, merge: OpenMerge) -> Any:
    """Returns the wanted change of a tensor, flat in fp32."""
    a, b = (_factor(load, merge) for load in (expr.a, expr.b))
    product = (b.flatten(1) @ a.flatten(1)) if not expr.is_transposed else (a.T @ b.T)
    return product.mul_(expr.scale).flatten()


def _factor(load: Load, merge: OpenMerge) -> Any:
    raw = merge.checkpoints[load.parent].files.read(load.file, load.tensor.start, load.tensor.stop)
    return _floats(np.frombuffer(raw, np.uint8).copy(), load.tensor.dtype).view(load.tensor.shape)


def _floats(data: Bytes, dtype: str) -> Any:
    return torch.from_numpy(np.array(data)).view(getattr(torch, FLOAT_NAMES[dtype])).float()


def _add(sums: _Sums, before: Any, now: Any, wanted: Any) -> None:
    sums.along += float(((now - before) * wanted).sum(dtype=torch.float64))
    sums.wanted += float((wanted * wanted).sum(dtype=torch.float64))
    sums.weight += float((before * before).sum(dtype=torch.float64))


def _role(name: str, stack: Any) -> str:
    part = name if layer_index(name, stack) is None else part_in_layer(name, stack)
    return part.removesuffix(".weight")


def _survival(sums: Mapping[str, _Sums]) -> Survival:
    along, wanted, weight = (sum(getattr(each, key) for each in sums.values()) for key in ("along", "wanted", "weight"))
    return Survival(
        overall=along / wanted if wanted else 1.0,
        by_role={role: each.along / each.wanted for role, each in sums.items() if each.wanted},
        relative_size=(wanted / weight) ** 0.5 if weight else 0.0,
    )
