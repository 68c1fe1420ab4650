"""Operands that are stored in some dtype, for compiled kernels and for torch."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hubmerge.merge.methods.method import Block
from hubmerge.merge.native.kernels import Stored
from hubmerge.merge.native.library import library
from tests.merge.methods.operands import TensorOperands

needs_library = pytest.mark.skipif(library() is None, reason="needs the compiled kernels")

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))


@dataclass
class StoredOperands(TensorOperands):
    """Whole tensors that compiled kernels may read."""

    def stored(self, block: Block) -> list[Stored]:
        return [stored(tensor.flatten()[block.start : block.stop]) for tensor in self.tensors]


def stored(tensor: Tensor) -> Stored:
    """Returns a flat tensor as kernels take it, in the same memory."""
    codes = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
    return Stored(tensor.view(torch.uint8).numpy(), codes[tensor.dtype])


def bits(values: Tensor) -> Tensor:
    """Returns the bit patterns, one for all NaN."""
    plain = torch.where(values.isnan(), torch.full_like(values, torch.nan), values)
    return plain.view(torch.int32 if plain.itemsize == 4 else torch.int16)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Returns whether two tensors are equal, zeros in sign too; NaN equals NaN."""
    return one.dtype == other.dtype and torch.equal(bits(one), bits(other))
