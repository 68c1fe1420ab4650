"""Compiled kernels against torch kernels, to the bit: methods, dtypes, odd lengths, numbers that are not numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.method import Block
from tests.merge.methods.cases import CASES, Case
from tests.merge.methods.operands import TensorOperands
from tests.merge.native.stored import DTYPES, StoredOperands, every_dtype, needs_library, same_bits, stored

pytestmark = needs_library

COMPILED = [case for case in CASES if METHODS[case.method].compiled and not case.method.startswith("della")]
every_case = pytest.mark.parametrize("case", COMPILED, ids=str)
LARGE = (1_025, 333)
"""Three blocks that begin at odd elements, longer than a sample needs."""


def tensors_of(case: Case, shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    return [tensor.to(dtype) for tensor in case.tensors(shape)]


def torch_merge(case: Case, tensors: list[Tensor], state: Any, dtype: torch.dtype) -> Tensor:
    operands = TensorOperands(tensors, case.has_base)
    method, settings = METHODS[case.method], case.settings()
    blocks = [method.combine(operands.load(block), settings, state, block) for block in operands.blocks]
    return torch.cat(blocks).to(dtype)


def compiled_merge(case: Case, tensors: list[Tensor], state: Any, dtype: torch.dtype) -> Tensor:
    operands = StoredOperands(tensors, case.has_base)
    kernel = METHODS[case.method].compiled(case.settings(), state)
    out = torch.empty(tensors[0].numel(), dtype=dtype)
    for block in operands.blocks:
        kernel(operands.stored(block), stored(out[block.start : block.stop]), first=block.start)
    return out


def prepared(case: Case, operands: TensorOperands) -> Any:
    method = METHODS[case.method]
    return method.prepare(operands, case.settings()) if method.prepare else None


def assert_agrees(case: Case, tensors: list[Tensor], out: torch.dtype) -> None:
    expected_state = prepared(case, TensorOperands(tensors, case.has_base))
    state = prepared(case, StoredOperands(tensors, case.has_base))
    expected = torch_merge(case, tensors, expected_state, out)
    assert same_bits(compiled_merge(case, tensors, state, out), expected)


@every_case
@every_dtype
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 683)], ids=str)
def test_results_are_the_same(case: Case, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    assert_agrees(case, tensors_of(case, shape, dtype), dtype)


@every_case
def test_results_over_several_blocks_are_the_same(case: Case) -> None:
    assert_agrees(case, tensors_of(case, LARGE, torch.bfloat16), torch.bfloat16)


@every_dtype
def test_results_from_several_dtypes_are_the_same(dtype: torch.dtype) -> None:
    case = next(case for case in COMPILED if case.method == "dare_ties")
    tensors = [tensor.to(d) for tensor, d in zip(case.tensors((3, 683)), [*DTYPES, torch.bfloat16], strict=True)]
    assert_agrees(case, tensors, dtype)


@every_case
@every_dtype
def test_numbers_that_are_not_numbers_come_out_the_same(case: Case, dtype: torch.dtype) -> None:
    tensors = tensors_of(case, (5, 1_031), dtype)
    state = prepared(case, TensorOperands(tensors, case.has_base))
    odd = with_odd_numbers(tensors)
    expected = torch_merge(case, odd, state, dtype)
    assert expected.isnan().any()
    assert same_bits(compiled_merge(case, odd, state, dtype), expected)


def with_odd_numbers(tensors: list[Tensor]) -> list[Tensor]:
    """Returns copies in which half of the elements are zeros of either sign, infinite, NaN, subnormal or extreme."""
    info = torch.finfo(tensors[0].dtype)
    tiny = info.smallest_normal
    odd = [0.0, -0.0, torch.inf, -torch.inf, torch.nan, tiny / 2, -tiny / 4, info.max, info.min, tiny, 1.0, -1.0]
    generator = torch.Generator().manual_seed(1)
    table = torch.tensor(odd, dtype=tensors[0].dtype)
    picks = [torch.randint(0, 2 * len(odd), tensor.shape, generator=generator) for tensor in tensors]
    return [
        torch.where(pick < len(odd), table[pick % len(odd)], tensor)
        for pick, tensor in zip(picks, tensors, strict=True)
    ]


@pytest.mark.parametrize("start", [0, 1, 511, 2**33 + 3])
def test_random_masks_are_those_of_the_element(start: int) -> None:
    case = Case("dare_linear", 2, True, {"weight": 1.0, "density": 0.5, "rescale": False})
    tensors = [torch.zeros(5_000), torch.ones(5_000)]
    state = prepared(case, TensorOperands(tensors))
    block = Block(start, start + 5_000, 5_000)
    out = torch.empty(5_000)
    kernel = METHODS[case.method].compiled(case.settings(), state)
    kernel([stored(tensor) for tensor in tensors], stored(out), first=start)
    expected = METHODS[case.method].combine([tensor.clone() for tensor in tensors], case.settings(), state, block)
    assert torch.equal(out, expected)
    assert 2_300 < int(out.sum()) < 2_700
