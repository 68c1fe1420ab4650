"""arcee_fusion: takes only the outstanding changes, those far above the middle half of all by their importance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubmerge.lazy_torch import torch
from hubmerge.merge.methods.gram import task_vectors
from hubmerge.merge.methods.method import Base, Block, Method, Operands, Settings
from hubmerge.merge.methods.selection import Measured, Query, find_cuts

if TYPE_CHECKING:
    from torch import Tensor

SMOOTHING = 1e-8
"""Added to probabilities, so that none is zero."""
OUTLIER_RANGES = 1.5
"""Interquartile ranges above the median from which on a change is taken."""


@dataclass(frozen=True)
class Importance:
    """What makes an element important.

    Attributes:
        divergences: KL divergence of each row from the base's, in the dtype of arithmetic.
        threshold: Least importance that is taken.
    """

    divergences: Tensor
    threshold: float


def _divergences(tensors: list[Tensor], block: Block) -> Tensor:
    """Returns KL(softmax x ‖ softmax base) of each row.

    It is a small difference of large sums, of the order of δ², for which fp32 has not enough digits.
    """
    base, tuned = (tensor.double().view(-1, block.row_length).softmax(-1).add_(SMOOTHING) for tensor in tensors)
    return (tuned / base).log_().mul_(tuned).sum(-1).to(tensors[0].dtype)


def _importances(tensors: list[Tensor], divergences: Tensor, block: Block) -> Tensor:
    """Returns |δ|·KL of each element; overwrites the tensors."""
    (delta,) = task_vectors(tensors)
    return _times_rows(delta.abs_(), divergences, block)


def _times_rows(values: Tensor, divergences: Tensor, block: Block) -> Tensor:
    """Multiplies the rows of a block by their divergences, in place."""
    rows = divergences[block.start // block.row_length : block.stop // block.row_length]
    return values.view(-1, block.row_length).mul_(rows.unsqueeze(1)).view(-1)


def _prepare(operands: Operands, _settings: Settings) -> Importance:
    if not operands.blocks:
        return Importance(torch.empty(0), 0.0)
    divergences = torch.cat([_divergences(operands.load(block), block) for block in operands.blocks])
    return Importance(divergences, _threshold(operands, divergences))


def _threshold(operands: Operands, divergences: Tensor) -> float:
    """Returns median + 1.5·IQR of the importances, each quantile being the element at or below its place."""
    elements = math.prod(operands.shape)
    queries = [Query(0, elements - quarters * (elements - 1) // 4) for quarters in (1, 2, 3)]
    importances = Measured(operands, lambda tensors, block: [_importances(tensors, divergences, block)])
    cuts = find_cuts(operands, importances, queries)
    lower, median, upper = (cuts[query].threshold for query in queries)
    return median + OUTLIER_RANGES * (upper - lower)


def _combine(tensors: list[Tensor], _settings: Settings, importance: Importance, block: Block) -> Tensor:
    base, (delta,) = tensors[0], task_vectors(tensors)
    values = _times_rows(delta.abs(), importance.divergences, block)
    is_important = torch.ge(values, importance.threshold, out=torch.empty_like(values))
    return base.addcmul_(delta, is_important)


ARCEE_FUSION = Method(
    name="arcee_fusion",
    title="Arcee Fusion",
    paper="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md",
    summary="Takes the changes that stand out by their size and by how much they alter the row's distribution.",
    parameters=(),
    base=Base.REQUIRED,
    least=2,
    most=2,
    prepare=_prepare,
    combine=_combine,
)
