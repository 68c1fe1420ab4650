"""The compiled kernels one by one: stored numbers and their rounding, sums, and selection."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hubmerge.merge.methods.gram import task_vectors
from hubmerge.merge.methods.masks import mask_key
from hubmerge.merge.methods.method import Block
from hubmerge.merge.methods.selection import Cut, Measured, Query, count_between, find_cuts
from hubmerge.merge.methods.sparsify import Keep, KeepAll, KeepBand, KeepNone, KeepRandom, Magnitudes
from hubmerge.merge.native import kernels
from tests.merge.methods.operands import TensorOperands
from tests.merge.native.stored import DTYPES, StoredOperands, every_dtype, needs_library, same_bits, stored

pytestmark = needs_library

RANDOM = KeepRandom(mask_key(3, "w", 0), 0.3)
LENGTHS = pytest.mark.parametrize("length", [1, 511, 512, 513, 5_000])


def every_pattern(dtype: torch.dtype) -> Tensor:
    """Returns all 65,536 numbers of a 16-bit dtype."""
    return torch.arange(-32_768, 32_768, dtype=torch.int32).to(torch.int16).view(dtype)


def converted(values: Tensor, dtype: torch.dtype) -> Tensor:
    out = torch.empty(values.numel(), dtype=dtype)
    kernels.WeightedSum([1.0])([stored(values)], stored(out))
    return out


def around_ties(dtype: torch.dtype) -> Tensor:
    """Returns the fp32 numbers halfway between neighbours of a 16-bit dtype, and those next to them."""
    numbers = every_pattern(dtype).float()
    numbers = numbers[numbers.isfinite()].sort().values.double()
    middles = ((numbers[1:] + numbers[:-1]) / 2).float()
    below, above = (torch.nextafter(middles, torch.full_like(middles, far)) for far in (-torch.inf, torch.inf))
    largest = torch.tensor([65_519.0, 65_520.0, 65_536.0, 3.4e38, torch.inf, torch.nan])
    return torch.cat([numbers.float(), middles, below, above, largest, -largest])


def task_tensors(length: int, dtype: torch.dtype, *, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(length, generator=generator)
    others = [base + 0.1 * torch.randn(length, generator=generator) for _ in range(3)]
    return [tensor.to(dtype) for tensor in (base, *others)]


@every_dtype
@pytest.mark.parametrize("source", DTYPES[:2], ids=["bfloat16", "float16"])
def test_every_number_is_read_and_rounded_as_by_torch(source: torch.dtype, dtype: torch.dtype) -> None:
    values = every_pattern(source)
    assert same_bits(converted(values, dtype), values.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=["bfloat16", "float16"])
def test_ties_are_rounded_to_even(dtype: torch.dtype) -> None:
    values = around_ties(dtype)
    assert same_bits(converted(values, dtype), values.to(dtype))


@LENGTHS
@every_dtype
def test_nothing_beyond_the_end_is_written(length: int, dtype: torch.dtype) -> None:
    out = torch.full((length + 64,), 7.0, dtype=dtype)
    kernels.WeightedSum([1.0])([stored(torch.zeros(length))], stored(out[:length]))
    assert not out[:length].any()
    assert bool((out[length:] == 7).all())


@LENGTHS
@every_dtype
def test_dot_products_are_sums_of_fp32_products_in_fp64(length: int, dtype: torch.dtype) -> None:
    a, b, *_ = task_tensors(length, dtype)
    expected = [math.fsum((x.float() * y.float()).tolist()) for x, y in ((a, a), (a, b), (b, b))]
    assert kernels.dots(stored(a), stored(b)) == pytest.approx(expected, rel=1e-14, abs=1e-13)


@LENGTHS
@every_dtype
def test_magnitudes_are_those_of_torch(length: int, dtype: torch.dtype) -> None:
    tensors = task_tensors(length, dtype)
    expected = [delta.abs() for delta in task_vectors([tensor.to(torch.float32, copy=True) for tensor in tensors])]
    found = kernels.magnitudes([stored(tensor) for tensor in tensors])
    assert all(np.array_equal(one, other.numpy()) for one, other in zip(found, expected, strict=True))


@LENGTHS
@pytest.mark.parametrize("keep", [KeepAll(), KeepNone(), RANDOM, KeepBand(Cut(0.05, 9), Cut(0.01, 600))], ids=repr)
def test_sums_of_magnitudes_are_exact_to_fp64(length: int, keep: Keep) -> None:
    operands = StoredOperands(task_tensors(length, torch.float32))
    block = Block(0, length, length)
    magnitudes = Magnitudes(operands).values(block)
    before, after = kernels.l1_sums(operands.stored(block), [keep.rule()] * 3, first=0)
    assert before == pytest.approx([math.fsum(values.tolist()) for values in magnitudes], rel=1e-14)
    assert after == pytest.approx(
        [math.fsum(keep(torch.from_numpy(values), block).tolist()) for values in magnitudes], rel=1e-14
    )


@LENGTHS
@pytest.mark.parametrize("keep", [KeepAll(), KeepNone(), RANDOM, KeepBand(Cut(0.05, 9), Cut(0.01, 600))], ids=repr)
def test_what_is_kept_is_what_torch_keeps(length: int, keep: Keep) -> None:
    operands = StoredOperands(task_tensors(length, torch.bfloat16))
    block = Block(0, length, length)
    expected = [keep(delta, block) for delta in task_vectors(operands.load(block))]
    found = kernels.thinned(operands.stored(block), [keep.rule()] * 3, first=0)
    assert all(np.array_equal(one, other.numpy()) for one, other in zip(found, expected, strict=True))


@LENGTHS
@pytest.mark.parametrize("span", [(0.05, 0.06), (0.0, math.inf), (-math.inf, math.inf), (0.0625, 0.0625)])
def test_a_pass_counts_and_collects_as_numpy_does(length: int, span: tuple[float, float]) -> None:
    operands = StoredOperands([(tensor * 16).round() / 16 for tensor in task_tensors(length, torch.float32)])
    operands.tensors[1][::7] = torch.nan
    block = Block(0, length, length)
    low, high = (float(np.float32(bound)) for bound in span)
    bounds = [kernels.Bounds(series, low, high) for series in (0, 0, 2)]
    expected = [count_between(Magnitudes(operands).values(block)[each.series], each) for each in bounds]
    for one, other in zip(kernels.tally(operands.stored(block), bounds), expected, strict=True):
        assert (one.above, one.at_high, one.at_low) == (other.above, other.at_high, other.at_low)
        np.testing.assert_array_equal(one.inside, other.inside)


@LENGTHS
def test_an_element_is_found_by_its_number_among_equal_ones(length: int) -> None:
    operands = StoredOperands([(tensor * 4).round() / 4 for tensor in task_tensors(length, torch.bfloat16)])
    block = Block(0, length, length)
    sizes = Magnitudes(operands).values(block)[1]
    base, _, tensor, _ = operands.stored(block)
    for size in np.unique(sizes):
        places = np.flatnonzero(sizes == size)
        found = [kernels.find(base, tensor, float(size), number) for number in (1, len(places))]
        assert found == [places[0], places[-1]]


@every_dtype
@LENGTHS
def test_values_that_are_no_numbers_are_counted(length: int, dtype: torch.dtype) -> None:
    values = torch.randn(length).to(dtype)
    assert kernels.count_non_finite(stored(values)) == 0
    values[::3] = torch.tensor([torch.nan, torch.inf, -torch.inf]).to(dtype).repeat(length)[: len(values[::3])]
    assert kernels.count_non_finite(stored(values)) == len(values[::3])


@every_dtype
@pytest.mark.parametrize("share", [0.0001, 0.3, 0.5, 0.97])
def test_the_same_elements_are_selected(share: float, dtype: torch.dtype) -> None:
    tensors = [tensor.view(1_100, 500) for tensor in task_tensors(550_000, dtype)]
    queries = [Query(series, int(share * 550_000)) for series in range(3)]
    plain = TensorOperands(tensors)
    measured = Measured(plain, lambda operands, _block: [delta.abs_() for delta in task_vectors(operands)])
    stored = StoredOperands(tensors)
    assert find_cuts(stored, Magnitudes(stored), queries) == find_cuts(plain, measured, queries)
