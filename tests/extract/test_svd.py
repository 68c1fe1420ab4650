"""Sketches beside the exact decomposition, whose error no factorisation of a rank can beat (Eckart and Young)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hubmerge.extract.factors import RankRule, energy_of, factorise
from hubmerge.extract.svd import EXACT_SIZE, growing, leading

LARGE = (EXACT_SIZE + 128, EXACT_SIZE + 256)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def decaying(*shape: int, power: float) -> Tensor:
    """Returns a matrix whose n-th singular value is n to a negative power."""
    count = min(shape)
    left, right = (torch.linalg.qr(noise(size, count, seed=size)).Q for size in shape)
    return left * torch.arange(1.0, count + 1) ** -power @ right.T


def error_over_least(matrix: Tensor, rank: int) -> float:
    """Returns the error of a sketch, in units of the least possible."""
    left, right = leading(matrix, rank, seed=7).balanced(rank)
    least = torch.linalg.svdvals(matrix)[rank:].norm()
    return float((matrix - left @ right).norm() / least)


@pytest.mark.parametrize("rank", [1, 8, 64])
def test_the_error_of_noise_is_within_a_hundredth_of_the_least_possible(rank: int) -> None:
    assert 1 - 1e-5 <= error_over_least(noise(*LARGE), rank) < 1.01


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_the_error_of_a_spectrum_that_decays_is_the_least_possible(power: float) -> None:
    assert error_over_least(decaying(*LARGE, power=power), 16) < 1.0005


@pytest.mark.parametrize("shape", [LARGE, LARGE[::-1], (3, 500), (500, 3), (40, 40), (1, 1)])
def test_a_matrix_of_low_rank_is_recovered_to_rounding(shape: tuple[int, int]) -> None:
    rank = min(5, *shape)
    matrix = noise(shape[0], rank) @ noise(rank, shape[1], seed=2)
    left, right = leading(matrix, rank, seed=7).balanced(rank)
    assert (matrix - left @ right).norm() < 2e-6 * matrix.norm()


def test_factors_share_the_scale_of_the_matrix() -> None:
    left, right = leading(noise(*LARGE) * 1e-4, 8, seed=7).balanced(8)
    torch.testing.assert_close(left.norm(dim=0), right.norm(dim=1), rtol=1e-4, atol=0)


def test_the_seed_decides_and_nothing_else() -> None:
    matrix = noise(*LARGE)
    torch.manual_seed(1)
    one = leading(matrix, 8, seed=7)
    torch.manual_seed(2)
    assert torch.equal(one.left, leading(matrix, 8, seed=7).left)
    assert not torch.equal(one.left, leading(matrix, 8, seed=8).left)


def test_a_sketch_grows_until_it_is_the_matrix() -> None:
    counts = [len(svd.values) for svd in growing(noise(400, 600), 10_000, seed=7)]
    assert counts == [32, 64, 128, 400]


def test_a_sketch_grows_no_further_than_it_may() -> None:
    assert [len(svd.values) for svd in growing(noise(400, 600), 100, seed=7)] == [32, 64, 100]


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [LARGE, (24, 60)])
def test_at_least_the_promised_energy_is_kept_as_far_as_the_dtype_can(
    share: float, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    matrix = decaying(*shape, power=1)
    factors = factorise(matrix, RankRule(10_000, share), dtype=dtype, seed=7)
    residual = energy_of(matrix - factors.left.float() @ factors.right.float())
    assert factors.lost == pytest.approx(residual, rel=1e-3, abs=1e-12)
    can_be_kept = share < (0.9999 if dtype is torch.bfloat16 else 1)
    assert not can_be_kept or residual <= (1 - share) * energy_of(matrix)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_the_rank_is_the_least_that_keeps_the_energy(share: float) -> None:
    matrix = decaying(*LARGE, power=1)
    energies = torch.linalg.svdvals(matrix).double().square()
    least = int((energies.cumsum(0) < share * energies.sum()).sum()) + 1
    assert least <= factorise(matrix, RankRule(10_000, share), dtype=torch.float32, seed=7).rank <= least + 1


def test_the_rank_stays_below_what_is_allowed() -> None:
    factors = factorise(noise(*LARGE), RankRule(20, 0.95), dtype=torch.float32, seed=7)
    assert factors.rank == 20
    assert factors.lost > 0.05 * factors.energy
