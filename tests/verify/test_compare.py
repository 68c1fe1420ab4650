"""Stored values against computed ones, counted in units in the last place."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hubmerge.merge.nodes import Bytes
from hubmerge.verify.compare import Differences, decoded

CODES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def stored(values: list[float], code: str) -> Bytes:
    return torch.tensor(values, dtype=CODES[code]).view(torch.uint8).numpy()


def compared(expected: list[float], found: list[float], code: str, *, tolerance: float = 0) -> Differences:
    differences = Differences(code, tolerance)
    differences.add(stored(expected, code), stored(found, code))
    return differences


@pytest.mark.parametrize("code", CODES)
def test_values_are_decoded(code: str) -> None:
    values = [0.0, -1.5, 2.0**-10, 96.0, math.inf]
    assert decoded(stored(values, code), code).tolist() == values


@pytest.mark.parametrize(("code", "epsilon"), [("BF16", 2**-7), ("F16", 2**-10), ("F32", 2**-23), ("F64", 2**-52)])
def test_neighbours_are_one_ulp_apart(code: str, epsilon: float) -> None:
    found = compared([1.0, -1.0], [1.0 + epsilon, -1.0], code)
    assert (found.beyond, found.looked_at, found.largest, found.ulps) == (1, 2, epsilon, 1)
    assert compared([1.0], [1.0 + epsilon], code, tolerance=1).beyond == 0
    assert compared([1.0], [1.0 + 2 * epsilon], code, tolerance=1).beyond == 1


def test_small_values_are_counted_in_ulps_of_the_block() -> None:
    found = compared([1.0, 2**-12], [1.0, 2**-11], "BF16")
    assert found.ulps == pytest.approx(2**-4, rel=1e-3)


def test_without_tolerance_bits_count() -> None:
    assert compared([0.0], [-0.0], "F32").beyond == 1
    assert compared([math.nan], [math.nan], "F32").beyond == 0


@pytest.mark.parametrize("tolerance", [0, 1e9])
def test_what_is_no_number_is_infinitely_far(tolerance: float) -> None:
    found = compared([1.0, math.inf], [math.nan, 1.0], "F32", tolerance=tolerance)
    assert (found.beyond, found.largest, found.ulps) == (2, math.inf, math.inf)


def test_integers_are_equal_or_not() -> None:
    found = Differences("I32", tolerance_ulps=5)
    found.add(*(np.array(values, np.int32).view(np.uint8) for values in ([1, 2, 3], [1, 2, 4])))
    assert (found.beyond, found.looked_at) == (1, 3)


def test_parts_are_added_up() -> None:
    found = compared([1.0], [1.5], "F32")
    found.join(compared([4.0, 1.0], [6.0, 1.0], "F32"))
    assert (found.beyond, found.looked_at, found.largest) == (2, 3, 2.0)
