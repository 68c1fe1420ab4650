"""Rounding up or down at random: a change that is smaller than a step of the dtype survives on average.

Rounding to the nearest takes it away, and with it most of what a gentle fine-tuning has taught a bf16 model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hubmerge.lazy_torch import torch
from hubmerge.merge.methods.masks import LANE_VALUES, MaskKey, lanes
from hubmerge.merge.methods.method import Block

if TYPE_CHECKING:
    from torch import Tensor

DITHER_INDEX = -1
"""In the place of an input's number in the key of the random numbers: no mask of an input has it."""


def dithered(values: Tensor, dtype: torch.dtype, block: Block, *, key: MaskKey) -> Tensor:
    """Returns fp32 or fp64 values of one block in bf16 or fp16, each one of its two neighbours there.

    A neighbour is the more probable the nearer it is, to 1.5e-5. Other dtypes are rounded to the nearest, and so are
    values that are not finite.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        return values.to(dtype)
    if dtype == torch.float16:
        values = values.cpu()  # where numpy knows a number's neighbours
    random = lanes(key, block, values.device)
    rounded = _to_bf16(values.float(), random) if dtype == torch.bfloat16 else _to_fp16(values.float(), random)
    return torch.where(torch.isfinite(values), rounded, values.to(dtype)).contiguous()


def _to_bf16(values: Tensor, random: Tensor) -> Tensor:
    """Adds the random bits below the last one of bf16 and cuts: a carry rounds up."""
    bits = values.contiguous().view(torch.int32) + (random.int() + LANE_VALUES // 2)
    return bits.bitwise_and_(-LANE_VALUES).view(torch.float32).to(torch.bfloat16)


def _to_fp16(values: Tensor, random: Tensor) -> Tensor:
    exact = values.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = exact.astype(np.float16)
        below = np.where(nearest <= exact, nearest, np.nextafter(nearest, np.float16(-np.inf)))
        above = np.nextafter(below, np.float16(np.inf))
        share = (exact - below.astype(np.float32)) / (above.astype(np.float32) - below.astype(np.float32))
    goes_up = (random.numpy().astype(np.float32) + (LANE_VALUES // 2 + 0.5)) / LANE_VALUES < share
    return torch.from_numpy(np.where(goes_up, above, below))
