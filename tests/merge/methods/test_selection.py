"""The k-th largest, against a sort: where brackets hold, where they miss, and among equal elements."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor

from hubmerge.errors import MergeError
from hubmerge.merge.methods.method import Block
from hubmerge.merge.methods.selection import Measured, Query, find_cuts, keep_largest
from tests.merge.methods.operands import TensorOperands

ROWS, COLUMNS = 1_088, 2_048
"""Large enough for a sample."""
NUMEL = ROWS * COLUMNS


def magnitudes(tensors: list[Tensor], _block: Block) -> list[Tensor]:
    return [tensor.abs_() for tensor in tensors]


def kept(operands: TensorOperands, rank: int) -> Tensor:
    """Returns which elements of the first tensor are among the `rank` largest magnitudes, flat."""
    cut = find_cuts(operands, Measured(operands, magnitudes), [Query(0, rank)])[Query(0, rank)]
    ones = [keep_largest(operands.load(block)[0], block, cut=cut) for block in operands.blocks]
    return torch.cat(ones) != 0


def expected(tensor: Tensor, rank: int) -> Tensor:
    sizes = tensor.abs().flatten().numpy()
    threshold = np.partition(sizes, sizes.size - rank)[sizes.size - rank]
    mask = sizes > threshold
    mask[np.flatnonzero(sizes == threshold)[: rank - mask.sum()]] = True
    return torch.from_numpy(mask & (sizes != 0))


def normal(seed: int = 0, shape: tuple[int, ...] = (ROWS, COLUMNS)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_ties() -> Tensor:
    """As differences of bf16 weights: about twenty values, each with a large share."""
    return (normal() * 4).round() / 4


def three_values() -> Tensor:
    return torch.randint(-1, 2, (ROWS, COLUMNS), generator=torch.Generator().manual_seed(0)).float()


def rows_of_other_scales() -> Tensor:
    return normal() * torch.logspace(-3, 3, ROWS).unsqueeze(1)


def large_where_the_sample_is_blind() -> Tensor:
    tensor = normal()
    tensor[5::17] *= 100
    return tensor


def rare_tokens() -> Tensor:
    """As an embedding of which fine-tuning changed few rows."""
    tensor = normal()
    tensor[64:] = 0
    return tensor


TENSORS = [
    normal,
    with_ties,
    three_values,
    rows_of_other_scales,
    large_where_the_sample_is_blind,
    rare_tokens,
    lambda: torch.ones(ROWS, COLUMNS),
    lambda: torch.arange(NUMEL, dtype=torch.float32).view(ROWS, COLUMNS),
]


@pytest.mark.parametrize("make", TENSORS)
@pytest.mark.parametrize("share", [1 / NUMEL, 0.01, 0.3333, 0.5, 1])
def test_the_largest_are_kept_and_equal_ones_from_the_lowest_index_on(make: object, share: float) -> None:
    tensor = make()
    rank = int(share * NUMEL)
    assert torch.equal(kept(TensorOperands([tensor]), rank), expected(tensor, rank))


@pytest.mark.parametrize("shape", [(), (1,), (9,), (300_000,), (7, 50_001), (70_000, 3), (600_000, 1)], ids=str)
def test_small_tensors_and_few_or_short_rows(shape: tuple[int, ...]) -> None:
    tensor = normal(shape=shape)
    rank = max(1, tensor.numel() // 3)
    assert torch.equal(kept(TensorOperands([tensor]), rank), expected(tensor, rank))


def test_every_block_is_read_once_after_the_sample() -> None:
    operands = TensorOperands([normal(1), normal(2), normal(3)])
    find_cuts(operands, Measured(operands, magnitudes), [Query(series, NUMEL // 2) for series in range(3)])
    whole = [block for block in operands.loaded if block in set(operands.blocks)]
    sampled = sum(block.elements for block in operands.loaded) - NUMEL
    assert whole == list(operands.blocks)
    assert sampled <= NUMEL / 16


def test_one_pass_answers_several_queries_of_one_quantity() -> None:
    tensor = normal()
    queries = [Query(0, rank) for rank in (1, NUMEL // 4, NUMEL // 2)]
    operands = TensorOperands([tensor])
    cuts = find_cuts(operands, Measured(operands, magnitudes), queries)
    descending = np.sort(tensor.abs().flatten().numpy())[::-1]
    assert [cuts[query].threshold for query in queries] == [float(descending[query.rank - 1]) for query in queries]


@pytest.mark.parametrize("make", [normal, with_ties, three_values])
def test_memory_stays_a_small_share_of_the_tensor(make: object) -> None:
    operands = TensorOperands([make()])
    tracemalloc.start()  # sees numpy's arrays, where elements are collected
    find_cuts(operands, Measured(operands, magnitudes), [Query(0, NUMEL // 2)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.25 * 4 * NUMEL


def test_double_precision_is_compared_in_full() -> None:
    tensor = 1 + normal(shape=(100, 100)).double() * 1e-12
    assert torch.equal(kept(TensorOperands([tensor]), 5_000), expected(tensor, 5_000))


def test_infinite_elements_are_the_largest() -> None:
    tensor = normal()
    tensor[3, 5] = -torch.inf
    assert kept(TensorOperands([tensor]), 1).nonzero().item() == 3 * COLUMNS + 5


def test_a_nan_outside_the_largest_does_not_matter() -> None:
    tensor = normal(shape=(100,))
    tensor[7] = torch.nan
    cut = find_cuts(TensorOperands([tensor]), Measured(TensorOperands([tensor]), magnitudes), [Query(0, 50)])[
        Query(0, 50)
    ]
    assert cut.threshold == np.sort(tensor[~tensor.isnan()].abs().numpy())[-50]


def test_too_many_nans_are_an_error_that_names_the_tensor() -> None:
    operands = TensorOperands([torch.full((4, 4), torch.nan)], name="lm_head.weight")
    with pytest.raises(MergeError) as error:
        find_cuts(operands, Measured(operands, magnitudes), [Query(0, 8)])
    assert str(error.value) == "lm_head.weight holds NaN in one of the models, so its elements cannot be ranked by size"
