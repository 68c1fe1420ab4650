from __future__ import annotations

import pytest
import torch

from hubmerge.errors import RecipeError
from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.linear import LINEAR
from hubmerge.merge.methods.passthrough import PASSTHROUGH
from tests.merge.methods.operands import merge, settings_for


def test_mean_of_two_models() -> None:
    result = merge(LINEAR, [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])], settings_for(LINEAR, 2, weight=0.7))
    torch.testing.assert_close(result, torch.tensor([2.0, 4.0]))


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.1, 0.2, -0.3], [0.0, 0.0]])
def test_weights_that_cancel_cannot_be_normalized(weights: list[float]) -> None:
    assert LINEAR.check is not None
    listed = ", ".join(map(str, weights))
    expected = f"the weights {listed} add up to 0, so normalize cannot divide by their sum"
    assert LINEAR.check(settings_for(LINEAR, len(weights), weight=weights)) == expected
    assert LINEAR.check(settings_for(LINEAR, len(weights), weight=weights, normalize=False)) is None


def test_small_weights_are_not_zero() -> None:
    assert LINEAR.check is not None
    assert LINEAR.check(settings_for(LINEAR, 2, weight=1e-12)) is None


def test_one_model_is_a_copy_unless_weighted() -> None:
    assert LINEAR.is_copy is not None
    assert LINEAR.is_copy(settings_for(LINEAR, 1, weight=0.3))
    assert not LINEAR.is_copy(settings_for(LINEAR, 1, weight=0.3, normalize=False))
    assert not LINEAR.is_copy(settings_for(LINEAR, 1, weight=0.0))
    assert not LINEAR.is_copy(settings_for(LINEAR, 2))


def test_passthrough_is_a_copy_unless_scaled() -> None:
    assert PASSTHROUGH.is_copy is not None
    assert PASSTHROUGH.is_copy(settings_for(PASSTHROUGH, 1))
    assert not PASSTHROUGH.is_copy(settings_for(PASSTHROUGH, 1, scale=0.5))


def test_unknown_methods_are_named() -> None:
    assert get_method("linear") is LINEAR
    with pytest.raises(RecipeError) as error:
        get_method("linaer")
    assert str(error.value) == "unknown merge_method linaer"
    assert error.value.hint is not None
    assert error.value.hint.startswith("hubmerge knows arcee_fusion, breadcrumbs, ")
