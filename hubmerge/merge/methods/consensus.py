"""Sign election: where models disagree on the direction of a change, the heavier side wins and the other is left out.

TIES-Merging, https://arxiv.org/abs/2306.01708, section 4: elect and disjoint merge.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def elected_signs(deltas: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """Returns +1 where Σ cᵢδᵢ ≥ 0 and −1 elsewhere."""
    first, *others = deltas
    total = first * coefficients[0]
    for delta, coefficient in zip(others, coefficients[1:], strict=True):
        total.add_(delta, alpha=coefficient)
    one = total.new_ones(())
    return torch.copysign(one, total.add_(0.0), out=total)  # adding zero makes −0 count as +


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
        elected: What `keep_elected` left of each δᵢ: not negative for weights ≥ 0, not positive for others.
        weights: Each wᵢ.
    """
    total = torch.zeros_like(elected[0])
    scratch = torch.empty_like(total)
    for delta, weight in zip(elected, weights, strict=True):
        total.add_(torch.sign(delta, out=scratch), alpha=abs(weight))
    return total.add_(torch.eq(total, 0, out=scratch))
