"""Model Stock: how far to go from the base to the mean of the models follows from the angles of their task vectors.

D.-H. Jang, S. Yun, D. Han, "Model Stock: All we need is just a few fine-tuned models", arxiv.org/abs/2403.19522.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from hubmerge.lazy_torch import torch
from hubmerge.merge.methods.gram import gram, task_vectors
from hubmerge.merge.methods.linear import weighted_sum
from hubmerge.merge.methods.method import Base, Block, Method, Operands, Parameter, Scope, Settings

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_NORMS = 1e-6
"""Least product of two norms that a dot product is divided by."""
SINGULAR = 1e-6
"""Below this |1 + (N−1)·cos| the ratio has no finite value, and the base is kept."""


def _ratio(dots: Tensor) -> Tensor:
    """Returns t = N·cos / (1 + (N−1)·cos), cos being the mean over pairs of models.

    Args:
        dots: Dot products of the task vectors, (N, N, ...).

    Returns:
        t of shape (...).
    """
    count = len(dots)
    norms = dots.diagonal().movedim(-1, 0).sqrt()
    cosines = [
        (dots[i, j] / (norms[i] * norms[j]).clamp(min=SMALLEST_NORMS)).clamp(-1, 1)
        for i, j in combinations(range(count), 2)
    ]
    cosine = torch.stack(cosines).mean(dim=0)
    divisor = 1 + (count - 1) * cosine
    return torch.where(divisor.abs() < SINGULAR, 0.0, count * cosine / divisor)


def _prepare(operands: Operands, settings: Settings) -> float | None:
    """Returns t of the whole tensor, None if every row has its own."""
    if settings.shared["filter_wise"]:
        return None
    dots = gram(operands, len(settings.inputs), vectors=task_vectors)
    return _ratio(torch.from_numpy(dots)).item()


def _row_dots(deltas: list[Tensor], block: Block) -> Tensor:
    """Returns the dot products of rows, (N, N, rows)."""
    rows = torch.stack(deltas).double().view(len(deltas), -1, block.row_length)
    return torch.einsum("irc,jrc->ijr", rows, rows)


def _combine(tensors: list[Tensor], _settings: Settings, whole_ratio: float | None, block: Block) -> Tensor:
    base, deltas = tensors[0], task_vectors(tensors)
    ratio = _ratio(_row_dots(deltas, block)).to(base.dtype).unsqueeze(1) if whole_ratio is None else whole_ratio
    mean = weighted_sum(deltas, [1 / len(deltas)] * len(deltas))
    return base.add_(mean.view(-1, block.row_length).mul_(ratio).view(-1))


MODEL_STOCK = Method(
    name="model_stock",
    title="Model Stock",
    paper="https://arxiv.org/abs/2403.19522",
    summary="Goes from the base towards the mean of the models as far as the angles of their task vectors suggest.",
    parameters=(Parameter("filter_wise", Scope.SHARED, False, "Give each row of a tensor a ratio of its own", bool),),
    base=Base.REQUIRED,
    least=3,
    most=None,
    prepare=_prepare,
    combine=_combine,
)
