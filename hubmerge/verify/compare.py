"""Stored values against computed ones: how many differ, by how much, and whether rounding can explain it.

A unit in the last place (ulp) is counted at the larger of the two values, or at the root mean square of the block where
that is larger still: a sum whose terms cancel keeps the rounding of the terms.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hubmerge.merge.nodes import Bytes
from hubmerge.weights.header import ITEM_BITS

MANTISSA_BITS = {"F16": 10, "BF16": 7, "F32": 23, "F64": 52}
"""Stored bits of the significand by safetensors code."""

_FLOATS = {"F16": np.float16, "F32": np.float32, "F64": np.float64}

Doubles = NDArray[np.float64]


@dataclass
class Differences:
    """What the comparison of one tensor has found so far.

    Attributes:
        dtype: safetensors code.
        tolerance_ulps: Values that differ by no more are counted as equal; 0 compares bits.
        looked_at: Elements compared.
        beyond: Elements that differ by more than the tolerance.
        largest: Largest absolute difference of any element.
        ulps: Largest difference in ulp of any element.
    """

    dtype: str
    tolerance_ulps: float = 0
    looked_at: int = field(default=0, init=False)
    beyond: int = field(default=0, init=False)
    largest: float = field(default=0, init=False)
    ulps: float = field(default=0, init=False)

    def add(self, expected: Bytes, stored: Bytes) -> None:
        """Compares the next bytes: whole elements, as many of one as of the other."""
        item_bytes = max(1, ITEM_BITS[self.dtype] // 8)
        self.looked_at += expected.size // item_bytes
        if np.array_equal(expected, stored):
            return
        is_other = (expected != stored).reshape(-1, item_bytes).any(1)
        if self.dtype not in MANTISSA_BITS:
            self.beyond += int(is_other.sum())
            self.largest = self.ulps = float("inf")
            return
        with np.errstate(invalid="ignore", over="ignore"):  # stored values may be anything
            values, others = decoded(expected, self.dtype), decoded(stored, self.dtype)
            self._add_values(values[is_other], others[is_other], _rms(values))

    def join(self, other: Differences) -> None:
        """Adds what was found in another part of the same tensor."""
        self.looked_at += other.looked_at
        self.beyond += other.beyond
        self.largest = max(self.largest, other.largest)
        self.ulps = max(self.ulps, other.ulps)

    def _add_values(self, expected: Doubles, stored: Doubles, scale: float) -> None:
        gap = np.nan_to_num(np.abs(expected - stored), nan=np.inf, posinf=np.inf)
        size = np.maximum(np.maximum(np.abs(expected), np.abs(stored)), scale)
        ulps = np.nan_to_num(gap / _ulp(size, MANTISSA_BITS[self.dtype]), nan=np.inf, posinf=np.inf)
        self.beyond += int((ulps > self.tolerance_ulps).sum()) if self.tolerance_ulps else len(gap)
        self.largest = max(self.largest, float(gap.max()))
        self.ulps = max(self.ulps, float(ulps.max()))


def decoded(data: Bytes, dtype: str) -> Doubles:
    """Returns the values of floats as they are stored, in fp64."""
    data = np.ascontiguousarray(data)
    if dtype == "BF16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return data.view(_FLOATS[dtype]).astype(np.float64)


def _rms(values: Doubles) -> float:
    finite = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0


def _ulp(size: Doubles, mantissa_bits: int) -> Doubles:
    """Returns the distance of neighbouring floats of that size, the exponent taken as unbounded."""
    _, exponent = np.frexp(size)
    distance: Doubles = np.ldexp(1.0, exponent - 1 - mantissa_bits)
    return distance
