from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubmerge.merge.settings import Case, Constant, Filtered, Gradient, Scalar, resolve

NAME = "model.layers.3.mlp.up_proj.weight"


def at(depth: float, *values: Scalar) -> Scalar | None:
    return resolve(Gradient(values), tensor_name=NAME, depth=depth)


def filtered(*cases: Case) -> Scalar | None:
    return resolve(Filtered(cases), tensor_name=NAME, depth=0.25)


def test_a_constant_holds_for_every_tensor() -> None:
    assert resolve(Constant(0.3), tensor_name=NAME, depth=0.7) == 0.3


@pytest.mark.parametrize(
    ("depth", "expected"), [(0, 0.0), (1, 1.0), (0.5, 0.3), (0.25, 0.5), (0.125, 0.25), (0.875, 0.85)]
)
def test_a_gradient_is_linear_between_its_values(depth: float, expected: float) -> None:
    assert at(depth, 0, 0.5, 0.3, 0.7, 1) == pytest.approx(expected, abs=1e-15)


def test_a_gradient_of_one_value_is_a_constant() -> None:
    assert [at(depth, 0.75) for depth in (0, 0.4, 1)] == [0.75, 0.75, 0.75]


def test_booleans_and_text_are_selected() -> None:
    assert [at(depth, True, False, True) for depth in (0, 0.49, 0.5, 0.99, 1)] == [True, True, False, False, True]
    assert [at(depth, "a", "b") for depth in (0, 0.99, 1)] == ["a", "a", "b"]


def test_the_first_matching_filter_wins() -> None:
    assert filtered(Case("mlp", Constant(1)), Case("up_proj", Constant(2)), Case(None, Constant(3))) == 1
    assert filtered(Case("attn", Constant(1)), Case(None, Constant(3))) == 3


def test_a_filter_may_hold_a_gradient() -> None:
    assert filtered(Case("mlp", Gradient((0.0, 1.0)))) == 0.25


def test_no_matching_filter_says_nothing() -> None:
    assert filtered(Case("attn", Constant(1))) is None


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40), st.floats(0, 1))
def test_a_gradient_stays_between_its_extremes(values: list[float], depth: float) -> None:
    value = at(depth, *values)
    assert isinstance(value, float)
    assert min(values) - 1e-12 <= value <= max(values) + 1e-12
