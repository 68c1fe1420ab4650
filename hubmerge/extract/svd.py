"""The largest singular triples of a matrix, exactly where it is small and from a random sketch where it is not.

The sketch is Halko, Martinsson, Tropp, "Finding structure with randomness", 2011, algorithms 4.4 and 5.1
(https://arxiv.org/abs/0909.4061): the range of a matrix from its products with a few random vectors, sharpened by
subspace iteration with a QR factorisation after every product, and the SVD of the matrix projected on that range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

OVERSAMPLING = 16
"""Columns of a sketch beyond the rank that is asked for."""

POWER_ITERATIONS = 4
"""Of a 1024x1536 matrix of noise, the flattest spectrum there is, four leave an error at most 1 % over the least that
is possible, at ranks 8 to 256; two leave 3 %, one 7 %."""

EXACT_SIZE = 256
"""Matrices with no more rows or columns than this are decomposed exactly, which takes milliseconds."""

FIRST_COUNT = 32
"""Singular values that are looked at first where nobody knows how many are needed."""


@dataclass(frozen=True)
class Svd:
    """M ≈ left · diag(values) · right, its largest values first.

    Attributes:
        left: `(m, k)`, orthonormal columns.
        values: `(k,)`.
        right: `(k, n)`, orthonormal rows.
    """

    left: Tensor
    values: Tensor
    right: Tensor

    def balanced(self, rank: int) -> tuple[Tensor, Tensor]:
        """Returns `(m, rank)` and `(rank, n)` with M ≈ their product, the values' square roots in each."""
        roots = self.values[:rank].sqrt()
        return self.left[:, :rank] * roots, roots[:, None] * self.right[:rank]


def leading(matrix: Tensor, count: int, *, seed: int) -> Svd:
    """Returns the `count` largest singular triples, or all if there are no more.

    Args:
        matrix: `(m, n)`, fp32, finite.
        count: At least one.
        seed: Of the random vectors; the same seed, matrix and number of torch threads give the same bits.
    """
    if _is_exact(matrix, count):
        return _exact(matrix, count)
    return _projected(matrix, _range(matrix, None, count, torch.Generator().manual_seed(seed)), count)


def growing(matrix: Tensor, most: int, *, seed: int) -> Iterator[Svd]:
    """Yields the largest singular triples, twice as many each time, the last time `most` or all that there are.

    What a sketch has found is the start of the next. Arguments are as of `leading`.
    """
    generator = torch.Generator().manual_seed(seed)
    most = min(most, *matrix.shape)
    count = min(FIRST_COUNT, most)
    basis: Tensor | None = None
    while not _is_exact(matrix, count):
        basis = _range(matrix, basis, count, generator)
        yield _projected(matrix, basis, count)
        if count == most:
            return
        count = min(2 * count, most)
    yield _exact(matrix, most)


def _is_exact(matrix: Tensor, count: int) -> bool:
    """Whether a sketch would be hardly smaller than the matrix, or the matrix is small."""
    size = min(matrix.shape)
    return size <= EXACT_SIZE or 2 * (count + OVERSAMPLING) >= size


def _exact(matrix: Tensor, count: int) -> Svd:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return Svd(left[:, :count], values[:count], right[:count])


def _range(matrix: Tensor, known: Tensor | None, count: int, generator: torch.Generator) -> Tensor:
    """Returns an orthonormal basis `(m, count + OVERSAMPLING)` of nearly the range of the largest triples."""
    width = count + OVERSAMPLING
    found = matrix.new_empty(len(matrix), 0) if known is None else known
    noise = torch.randn(matrix.shape[1], width - found.shape[1], generator=generator)
    basis = _orthonormal(torch.cat([found, matrix @ noise], dim=1))
    for _ in range(POWER_ITERATIONS):
        basis = _orthonormal(matrix @ _orthonormal(matrix.T @ basis))
    return basis


def _orthonormal(columns: Tensor) -> Tensor:
    basis: Tensor = torch.linalg.qr(columns).Q
    return basis


def _projected(matrix: Tensor, basis: Tensor, count: int) -> Svd:
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return Svd(basis @ left[:, :count], values[:count], right[:count])
