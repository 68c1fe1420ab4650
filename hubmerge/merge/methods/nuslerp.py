"""nuslerp: spherical interpolation of two models or of their task vectors, over whole tensors, rows or columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubmerge.lazy_torch import torch
from hubmerge.merge.methods.gram import all_operands, gram, task_vectors
from hubmerge.merge.methods.method import Base, Block, Method, Operands, Parameter, Scope, Settings

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_NORM = 1e-7
ZERO_WEIGHT = 1e-6
"""A sum of weights below this says nothing about their proportion."""
COLLINEAR = 1e-7
"""Below this sin² θ, fp32 cannot tell the angle from 0 or π, and the path is a straight line."""


@dataclass(frozen=True)
class Arc:
    """The weights of both models, of a shape that broadcasts over (rows, row_length)."""

    first: Tensor
    second: Tensor


def _position(settings: Settings) -> float:
    """Returns how far the result lies from the first model."""
    first, second = settings.column("weight")
    return 0.5 if abs(first + second) < ZERO_WEIGHT else second / (first + second)


def _arc(dots: Tensor, t: float) -> Arc:
    """Returns the weights from the dot products ⟨a, a⟩, ⟨a, b⟩ and ⟨b, b⟩, (3, ...)."""
    first_squared, dot, second_squared = dots
    norms = first_squared.sqrt().clamp(min=SMALLEST_NORM) * second_squared.sqrt().clamp(min=SMALLEST_NORM)
    cosine = (dot / norms).clamp(-1, 1)
    is_line = 1 - cosine.square() <= COLLINEAR
    theta = torch.acos(cosine)
    return Arc(
        torch.where(is_line, 1 - t, torch.sin((1 - t) * theta) / torch.sin(theta)),
        torch.where(is_line, t, torch.sin(t * theta) / torch.sin(theta)),
    )


def _products(vectors: list[Tensor], block: Block) -> Tensor:
    """Returns a·a, a·b and b·b of every element in fp64, (3, rows, row_length)."""
    a, b = (vector.double() for vector in vectors)
    return torch.stack([a * a, a * b, b * b]).view(3, -1, block.row_length)


def _vectors(tensors: list[Tensor]) -> list[Tensor]:
    return task_vectors(tensors) if len(tensors) == 3 else all_operands(tensors)


def _prepare(operands: Operands, settings: Settings) -> Arc | None:
    """Returns the weights of the whole tensor or of each column, None if every row has its own."""
    t = _position(settings)
    if settings.shared["nuslerp_flatten"] or len(operands.shape) < 2:
        return _arc(torch.from_numpy(gram(operands, 2, vectors=_vectors)).flatten()[[0, 1, 3]], t)
    if settings.shared["nuslerp_row_wise"] and operands.blocks:
        return _arc(_column_dots(operands), t)
    return None


def _column_dots(operands: Operands) -> Tensor:
    """Returns the dot products of vectors along the first dimension, (3, prod(shape[1:-1]), shape[-1])."""
    groups = math.prod(operands.shape[1:-1])
    total: Tensor | None = None
    for block in operands.blocks:
        products = _products(_vectors(operands.load(block)), block)
        total = products.new_zeros(3, groups, block.row_length) if total is None else total
        _add_rows(total, products, _groups(block, groups).to(total.device))
    assert total is not None
    return total


def _add_rows(total: Tensor, rows: Tensor, group_of_row: Tensor) -> None:
    """Adds (3, rows, row_length) to (3, groups, row_length) in an order that every device keeps."""
    groups = total.shape[1]
    if groups == 1:
        total.add_(rows.sum(dim=1, keepdim=True))
        return
    for start in range(0, len(group_of_row), groups):  # no group occurs twice among so many neighbours
        total.index_add_(1, group_of_row[start : start + groups], rows[:, start : start + groups])


def _groups(block: Block, groups: int) -> Tensor:
    """Returns which vectors along the first dimension each row of a block belongs to."""
    return torch.arange(block.start // block.row_length, block.stop // block.row_length) % groups


def _arc_of(a: Tensor, b: Tensor, arc: Arc | None, block: Block, t: float) -> Arc:
    """Returns the weights that broadcast over a block's rows."""
    if arc is None:
        return _arc(_products([a, b], block).sum(dim=2, keepdim=True), t)
    if arc.first.dim() == 0:
        return arc
    groups = _groups(block, len(arc.first))
    return Arc(arc.first[groups], arc.second[groups])


def _combine(tensors: list[Tensor], settings: Settings, state: Arc | None, block: Block) -> Tensor:
    a, b = _vectors(tensors)
    arc = _arc_of(a, b, state, block, _position(settings))
    first, second = arc.first.to(a), arc.second.to(a)
    rows = a.view(-1, block.row_length).mul_(first).addcmul_(b.view(-1, block.row_length), second)
    return rows.view(-1) if len(tensors) == 2 else tensors[0].add_(rows.view(-1))


def _check(settings: Settings) -> str | None:
    count = len(settings.inputs)
    return None if count == 2 else f"nuslerp takes two models besides the base, not {count}"


NUSLERP = Method(
    name="nuslerp",
    title="NuSLERP",
    paper="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md",
    summary="Spherical interpolation between two models, or between their task vectors if there is a base.",
    parameters=(
        Parameter("weight", Scope.TUNED, None, "Share of the model; the position on the arc follows from both"),
        Parameter("nuslerp_flatten", Scope.SHARED, True, "Take a tensor as one vector", bool),
        Parameter(
            "nuslerp_row_wise", Scope.SHARED, False, "Else take vectors along the first dimension, not the last", bool
        ),
    ),
    base=Base.OPTIONAL,
    least=2,
    most=3,
    prepare=_prepare,
    combine=_combine,
    check=_check,
)
