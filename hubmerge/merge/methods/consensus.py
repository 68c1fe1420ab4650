"""Sign election: where models disagree on the direction of a change, the heavier side wins and the other is left out.

TIES-Merging, https://arxiv.org/abs/2306.01708, section 4: elect and disjoint merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hubmerge.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


def elected_signs(deltas: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """Returns +1 where Σ cᵢδᵢ ≥ 0 and −1 elsewhere."""
    first, *others = deltas
    total = first * coefficients[0]
    for delta, coefficient in zip(others, coefficients[1:], strict=True):
        total.add_(delta, alpha=coefficient)
    return torch.ge(total, 0, out=total).mul_(2).sub_(1)


def keep_elected(deltas: Sequence[Tensor], coefficients: Sequence[float], signs: Tensor) -> None:
    """Clears each δᵢ where cᵢδᵢ has not the elected sign and multiplies the rest by that sign, in place."""
    for delta, coefficient in zip(deltas, coefficients, strict=True):
        delta.mul_(signs)
        if coefficient >= 0:
            delta.clamp_min_(0)
        else:
            delta.clamp_max_(0)


def kept_weights(elected: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Returns Σ wᵢ over the non-zero elements that `keep_elected` left, 1 where that sum is 0.

    Args:
        elected: What `keep_elected` left of each δᵢ.
        weights: Each wᵢ.
    """
    total, mask = torch.zeros_like(elected[0]), torch.empty_like(elected[0])
    for delta, weight in zip(elected, weights, strict=True):
        total.add_(torch.ne(delta, 0, out=mask), alpha=weight)
    return total.add_(torch.eq(total, 0, out=mask))
