"""A matrix as the product of two thin ones, of a given rank or of the least that keeps a share of its energy.

Energy is the squared Frobenius norm. What is kept is measured on the factors as they are stored, after rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from hubmerge.extract.svd import Svd, growing, leading

RESIDUAL_ROWS = 512
"""Rows of a residual that are held at a time."""


@dataclass(frozen=True)
class RankRule:
    """How many columns the factors have.

    Attributes:
        most: The rank; the most that is allowed where `energy` is given.
        energy: Share of the energy to keep, in (0, 1]; None for the same rank everywhere.
    """

    most: int
    energy: float | None = None


@dataclass(frozen=True)
class Factors:
    """M ≈ left · right.

    Attributes:
        left: `(m, rank)`.
        right: `(rank, n)`.
        energy: Of M.
        lost: Energy of M − left · right.
    """

    left: Tensor
    right: Tensor
    energy: float
    lost: float

    @property
    def rank(self) -> int:
        """Columns of `left`."""
        return len(self.right)


def factorise(matrix: Tensor, rule: RankRule, *, dtype: torch.dtype, seed: int) -> Factors:
    """Returns the factors of a matrix.

    Args:
        matrix: `(m, n)`, fp32, finite, not all zeros.
        rule: Their rank; what is more than `min(m, n)` is zeros, so that all of an adapter's weights have one rank.
        dtype: What they are rounded to.
        seed: Of the random sketch.
    """
    energy = energy_of(matrix)
    if rule.energy is None:
        svd = leading(matrix, rule.most, seed=seed)
        return _padded(_rounded(matrix, svd, len(svd.values), energy, dtype), rule.most)
    for svd in growing(matrix, rule.most, seed=seed):
        factors = _least_factors(matrix, svd, rule.energy * energy, energy, dtype)
        if factors.energy - factors.lost >= rule.energy * energy:
            break
    return factors


def _padded(factors: Factors, rank: int) -> Factors:
    missing = rank - factors.rank
    left, right = pad(factors.left, (0, missing)), pad(factors.right, (0, 0, 0, missing))
    return replace(factors, left=left, right=right)


def energy_of(tensor: Tensor) -> float:
    """Returns the sum of squares, added up in fp64."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2


def _least_factors(matrix: Tensor, svd: Svd, wanted: float, energy: float, dtype: torch.dtype) -> Factors:
    """Returns the factors of the least rank that keep an energy after rounding; those of all values if none do."""
    goal, rank = wanted, 0
    while True:
        rank = max(rank + 1, _least_rank(svd, goal))
        factors = _rounded(matrix, svd, rank, energy, dtype)
        shortfall = wanted - (energy - factors.lost)
        if shortfall <= 0 or rank == len(svd.values):
            return factors
        goal += shortfall


def _least_rank(svd: Svd, energy: float) -> int:
    """Returns how many values it takes to have an energy; all of them if that is not enough."""
    reached = svd.values.double().square().cumsum(0) >= energy
    return int(reached.int().argmax()) + 1 if bool(reached.any()) else len(svd.values)


def _rounded(matrix: Tensor, svd: Svd, rank: int, energy: float, dtype: torch.dtype) -> Factors:
    left, right = (factor.to(dtype) for factor in svd.balanced(rank))
    return Factors(left, right, energy, _residual(matrix, left.float(), right.float()))


def _residual(matrix: Tensor, left: Tensor, right: Tensor) -> float:
    rows = range(0, len(matrix), RESIDUAL_ROWS)
    return sum(energy_of(matrix[i : i + RESIDUAL_ROWS] - left[i : i + RESIDUAL_ROWS] @ right) for i in rows)
