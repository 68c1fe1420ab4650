"""Sums over a sample of a tensor's elements, and what follows from them.

Everything is kept as sums that add up, so that tensors can be put together by layer and role, and a resumed run can go
on from those of the first one. For n models x₀ ... xₙ₋₁ the vectors are v₀ = x₀ and vᵢ = xᵢ − x₀: where x₀ is the base,
the vᵢ are the task vectors. All cosines and distances follow from their dot products, without the cancellation that
taking the dot products of nearly parallel xᵢ would have.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubmerge.merge.methods.method import Block, blocks_of
from hubmerge.merge.watch import Values

Matrix = NDArray[np.float64]

SAMPLES = 4
"""Places of a tensor that are looked at: its first block, and others at equal distances."""

SAMPLE_ELEMENTS = 4_096
"""Elements at each place. All places give 16,384, so that a cosine is off by about 1/√16,384 = 0.008."""


def sampled(shape: Sequence[int], *, places: int = SAMPLES, elements: int = SAMPLE_ELEMENTS) -> list[Block]:
    """Returns what to look at: whole rows from the beginning of some blocks, at least one."""
    blocks = blocks_of(shape)
    count = min(places, len(blocks))
    return [_head(blocks[number * len(blocks) // count], elements) for number in range(count)]


def _head(block: Block, elements: int) -> Block:
    length = max(1, elements // block.row_length) * block.row_length
    return Block(block.start, min(block.stop, block.start + length), block.row_length)


@dataclass(frozen=True, eq=False)
class Sums:
    """Of some elements of n models, the first of which is the reference: the base, where there is one.

    Attributes:
        elements: How many.
        dots: `(n, n)`: ⟨vᵢ, vⱼ⟩.
        signs: `(n - 1, n - 1)`: Σ sign(vᵢ) sign(vⱼ) of the differences.
        both: `(n - 1, n - 1)`: elements at which neither difference is zero.
        positive: `(n - 1,)`: elements above zero.
        kept: `(n - 1,)`: elements of the differences that the method keeps, those that are zero not counted.
        thinned: Whether the method keeps a part only.
    """

    elements: int
    dots: Matrix
    signs: Matrix
    both: Matrix
    positive: Matrix
    kept: Matrix
    thinned: bool

    def __add__(self, other: Sums) -> Sums:
        """Returns the sums over both."""
        return Sums(
            self.elements + other.elements,
            self.dots + other.dots,
            self.signs + other.signs,
            self.both + other.both,
            self.positive + other.positive,
            self.kept + other.kept,
            self.thinned or other.thinned,
        )

    @property
    def models(self) -> int:
        """Number of models, the reference included."""
        return len(self.dots)


def measure(operands: Sequence[Values], kept: Sequence[Values] | None) -> Sums:
    """Returns the sums over one block; NaN and infinity count as zero.

    Args:
        operands: One flat tensor a model, the reference first.
        kept: What the method keeps of each difference, zeros elsewhere.
    """
    vectors = np.stack([np.asarray(each) for each in operands])
    if not np.isfinite(vectors).all():
        vectors = np.nan_to_num(vectors, nan=0, posinf=0, neginf=0)
    vectors[1:] -= vectors[:1]
    signs = np.sign(vectors[1:]).astype(np.float32)  # sums of ±1 over a block are whole numbers that fp32 holds
    both = _products_of_rows(np.abs(signs))
    return Sums(
        elements=vectors.shape[1],
        dots=_products_of_rows(vectors.astype(np.float64)),
        signs=_products_of_rows(signs),
        both=both,
        positive=(signs > 0).sum(1).astype(np.float64),
        kept=np.diag(both).copy() if kept is None else np.array([float(np.count_nonzero(each)) for each in kept]),
        thinned=kept is not None,
    )


def _products_of_rows(rows: NDArray[np.floating[Any]]) -> Matrix:
    """Returns all dot products between rows, added up in one order and by one thread, unlike a BLAS would."""
    products: Matrix = np.einsum("ik,jk->ij", rows, rows).astype(np.float64)
    return products


def add_up(parts: Iterable[Sums]) -> Sums:
    """Returns the sums over all parts, of which there is at least one, in order."""
    return functools.reduce(operator.add, parts)


def relative_norms(sums: Sums) -> tuple[float | None, ...]:
    """Returns ‖xᵢ − x₀‖ / ‖x₀‖ of every model after the reference; None where the reference is zero."""
    lengths = np.sqrt(np.diag(sums.dots))
    return tuple(_ratio(length, lengths[0]) for length in lengths[1:])


def distances(sums: Sums) -> Matrix:
    """Returns `(n, n)`: ‖xᵢ − xⱼ‖ / ‖xᵢ‖, zero where both are zero."""
    raw = _centred(sums)
    norms = np.diag(_products(sums))
    squares = np.diag(raw)[:, None] + np.diag(raw)[None, :] - 2 * raw
    ratio = np.full_like(squares, math.inf)
    np.divide(np.maximum(squares, 0), norms[:, None], out=ratio, where=norms[:, None] > 0)
    ratio[squares <= 0] = 0
    apart: Matrix = np.sqrt(ratio)
    return apart


def cosines(sums: Sums) -> Matrix:
    """Returns `(n, n)`: cos(xᵢ, xⱼ); nan where one is zero."""
    return _normalised(_products(sums))


def task_vector_cosines(sums: Sums) -> Matrix:
    """Returns `(n - 1, n - 1)`: cos(xᵢ − x₀, xⱼ − x₀); nan where one is zero."""
    return _normalised(sums.dots[1:, 1:])


@dataclass(frozen=True)
class SignConflict:
    """How often two task vectors pull an element in opposite directions.

    Attributes:
        rate: Of the elements that both change, over all pairs together.
        chance: What it would be if the signs of one had nothing to do with the other's.
    """

    rate: float
    chance: float


def sign_conflict(sums: Sums) -> SignConflict | None:
    """Returns the conflict over all pairs of task vectors; None where no two change the same element."""
    upper = np.triu_indices(len(sums.both), 1)
    both = sums.both[upper]
    if not both.sum():
        return None
    positive = sums.positive / np.maximum(np.diag(sums.both), 1)
    chance = positive[:, None] * (1 - positive) + (1 - positive)[:, None] * positive
    opposed = (both - sums.signs[upper]) / 2
    return SignConflict(float(opposed.sum() / both.sum()), float((chance[upper] * both).sum() / both.sum()))


def kept_shares(sums: Sums) -> tuple[float | None, ...] | None:
    """Returns which share of each task vector's nonzero elements is kept; None where the method keeps all."""
    if not sums.thinned:
        return None
    return tuple(_ratio(kept, changed) for kept, changed in zip(sums.kept, np.diag(sums.both), strict=True))


def sums_to_json(sums: Sums) -> dict[str, Any]:
    """Returns the sums as numbers and lists, from which `sums_from_json` makes the same again to the bit."""
    arrays = {name: getattr(sums, name).tolist() for name in ("dots", "signs", "both", "positive", "kept")}
    return {"elements": sums.elements, **arrays, "thinned": sums.thinned}


def sums_from_json(content: dict[str, Any], *, models: int) -> Sums:
    """Returns what `sums_to_json` wrote of so many models.

    Raises:
        ValueError: It is something else; or KeyError, TypeError, OverflowError.
    """
    square, row = (models - 1, models - 1), (models - 1,)
    shapes = {"dots": (models, models), "signs": square, "both": square, "positive": row, "kept": row}
    arrays = {name: np.array(content[name]) for name in shapes}
    if any(each.shape != shapes[name] or each.dtype.kind not in "if" for name, each in arrays.items()):
        raise ValueError("not the sums of these models")
    return Sums(elements=operator.index(content["elements"]), **arrays, thinned=bool(content["thinned"]))


def _products(sums: Sums) -> Matrix:
    """Returns ⟨xᵢ, xⱼ⟩, of xᵢ = x₀ + vᵢ."""
    dots = sums.dots
    own = _centred(sums)
    with_first = np.concatenate(([0.0], dots[0, 1:]))
    products: Matrix = dots[0, 0] + with_first[:, None] + with_first[None, :] + own
    return products


def _centred(sums: Sums) -> Matrix:
    """Returns ⟨xᵢ − x₀, xⱼ − x₀⟩ with the reference's own row and column, which are zero."""
    return np.pad(sums.dots[1:, 1:], ((1, 0), (1, 0)))


def _normalised(products: Matrix) -> Matrix:
    lengths = np.sqrt(np.maximum(np.diag(products), 0))
    scale = lengths[:, None] * lengths[None, :]
    cosine = np.full_like(products, math.nan)
    np.divide(products, scale, out=cosine, where=scale > 0)
    limited: Matrix = np.clip(cosine, -1, 1)
    return limited


def _ratio(numerator: float, denominator: float) -> float | None:
    return float(numerator / denominator) if denominator else None
