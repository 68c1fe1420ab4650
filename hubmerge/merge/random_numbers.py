"""Random numbers of a tensor, any block of it on its own: from the generator of the masks (see `methods.masks`)."""

from __future__ import annotations

import functools
from statistics import NormalDist
from typing import TYPE_CHECKING

from hubmerge.lazy_torch import torch
from hubmerge.merge.expr import Random
from hubmerge.merge.methods.masks import LANE_VALUES, lanes, mask_key
from hubmerge.merge.methods.method import Block

if TYPE_CHECKING:
    from torch import Tensor


def random_block(expr: Random, block: Block) -> Tensor:
    """Returns the elements of a block in fp32."""
    key = mask_key(expr.seed, expr.name, 0)
    chosen = lanes(key, block, torch.device("cpu")).to(torch.int32).add_(LANE_VALUES // 2)
    return _quantiles(expr.kind)[chosen].mul_(expr.scale)


@functools.cache
def _quantiles(kind: str) -> Tensor:
    """Returns the middles of LANE_VALUES equally probable parts of a distribution, ascending, in fp32.

    Computed without torch, whose inverse error function need not give the same bits on every processor.
    """
    middles = [(2 * lane + 1) / (2 * LANE_VALUES) for lane in range(LANE_VALUES)]
    if kind == "uniform":
        return torch.tensor([2 * middle - 1 for middle in middles])
    quantile = NormalDist().inv_cdf
    return torch.tensor([quantile(middle) for middle in middles])
