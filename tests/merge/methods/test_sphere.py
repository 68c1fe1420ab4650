"""slerp, nuslerp, multislerp and karcher where angles are special."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hubmerge.errors import MergeError
from hubmerge.merge.methods.nuslerp import NUSLERP
from hubmerge.merge.methods.slerp import SLERP
from hubmerge.merge.methods.sphere import KARCHER, MULTISLERP
from tests.merge.methods.operands import merge, settings_for

EAST, NORTH = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    return merge(SLERP, [a, b], settings_for(SLERP, 1, t=t))


def test_slerp_goes_around_the_circle() -> None:
    angle = math.radians(30)
    torch.testing.assert_close(slerp(EAST, NORTH, 1 / 3), torch.tensor([math.cos(angle), math.sin(angle)]))


@pytest.mark.parametrize(("t", "end"), [(0.0, EAST), (1.0, 2 * NORTH)])
def test_slerp_ends_at_the_base_and_at_the_other_model(t: float, end: Tensor) -> None:
    torch.testing.assert_close(slerp(EAST, 2 * NORTH, t), end)


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0, -2.0])
def test_slerp_of_collinear_tensors_is_a_straight_line(factor: float) -> None:
    a = torch.randn(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(slerp(a, factor * a, 0.25), (0.75 + 0.25 * factor) * a)


def test_slerp_with_a_zero_tensor_takes_a_right_angle() -> None:
    torch.testing.assert_close(slerp(torch.zeros(2), NORTH, 0.5), math.sqrt(0.5) * NORTH)


def test_nuslerp_position_is_the_second_weights_share() -> None:
    result = merge(NUSLERP, [EAST, NORTH], settings_for(NUSLERP, 2, weight=[2.0, 1.0]))
    torch.testing.assert_close(result, slerp(EAST, NORTH, 1 / 3))


def test_nuslerp_over_rows_and_over_columns() -> None:
    a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    rows = merge(NUSLERP, [a, b], settings_for(NUSLERP, 2, nuslerp_flatten=False))
    columns = merge(NUSLERP, [a.T, b.T], settings_for(NUSLERP, 2, nuslerp_flatten=False, nuslerp_row_wise=True))
    torch.testing.assert_close(rows, torch.tensor([[math.sqrt(0.5), math.sqrt(0.5)], [1.5, 0.0]]))
    torch.testing.assert_close(columns, rows.T)


def test_nuslerp_of_opposite_tensors_is_a_straight_line() -> None:
    a = torch.randn(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(merge(NUSLERP, [a, -a], settings_for(NUSLERP, 2, weight=[3.0, 1.0])), 0.5 * a)


@pytest.mark.parametrize("count", [1, 3])
def test_nuslerp_takes_two_models(count: int) -> None:
    assert NUSLERP.check is not None
    expected = f"nuslerp takes two models besides the base, not {count}"
    assert NUSLERP.check(settings_for(NUSLERP, count)) == expected


def test_multislerp_keeps_the_mean_norm() -> None:
    result = merge(MULTISLERP, [EAST, 3 * NORTH], settings_for(MULTISLERP, 2))
    torch.testing.assert_close(result, torch.tensor([math.sqrt(2), math.sqrt(2)]))


def test_multislerp_leaves_what_no_model_changed() -> None:
    base = torch.randn(9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(merge(MULTISLERP, [base] * 4, settings_for(MULTISLERP, 3)), base)


def test_multislerp_of_two_opposite_tensors_is_their_weighted_sum() -> None:
    torch.testing.assert_close(merge(MULTISLERP, [EAST, -EAST], settings_for(MULTISLERP, 2)), torch.zeros(2))


def test_multislerp_of_directions_that_cancel_is_an_error_that_names_the_tensor() -> None:
    third = torch.tensor([-1.0, -1.0])
    with pytest.raises(MergeError) as error:
        merge(MULTISLERP, [EAST, NORTH, third], settings_for(MULTISLERP, 3, weight=[1.0, 1.0, 2**0.5]), name="w")
    assert str(error.value) == "w: the directions of the models cancel, so multislerp has no mean of them"


def test_multislerp_checks_its_weights() -> None:
    assert MULTISLERP.check is not None
    expected = "the weights 1.0, -1.0 add up to 0, so normalize_weights cannot divide by their sum"
    assert MULTISLERP.check(settings_for(MULTISLERP, 2, weight=[1.0, -1.0])) == expected
    assert MULTISLERP.check(settings_for(MULTISLERP, 2, weight=[1.0, -1.0], normalize_weights=False)) is None
    assert MULTISLERP.check(settings_for(MULTISLERP, 2, eps=-1.0)) == "eps is -1.0, but must not be negative"


def test_karcher_mean_of_two_directions_is_between_them() -> None:
    result = merge(KARCHER, [EAST, 3 * NORTH], settings_for(KARCHER, 2))
    torch.testing.assert_close(result, torch.tensor([math.sqrt(2), math.sqrt(2)]))


def test_karcher_mean_of_opposite_directions_is_one_of_them() -> None:
    torch.testing.assert_close(merge(KARCHER, [EAST, -EAST], settings_for(KARCHER, 2)), EAST)


def test_karcher_counts_a_zero_tensor_in_the_norm_only() -> None:
    torch.testing.assert_close(merge(KARCHER, [EAST, torch.zeros(2)], settings_for(KARCHER, 2)), 0.5 * EAST)


def test_karcher_checks_its_numbers() -> None:
    assert KARCHER.check is not None
    assert KARCHER.check(settings_for(KARCHER, 2, max_iter=-1)) == "max_iter is -1, but must not be negative"
    assert KARCHER.check(settings_for(KARCHER, 2, tol=-0.1)) == "tol is -0.1, but must not be negative"
