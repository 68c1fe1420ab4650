"""The task vector family element by element."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hubmerge.merge.methods import METHODS
from tests.merge.methods.operands import merge, settings_for

RANDOM = ["dare_linear", "dare_ties", "della", "della_linear"]


def merged(method: str, *deltas: list[float], **values: object) -> list[float]:
    """Merges task vectors on a base of zeros."""
    tensors = [torch.zeros(len(deltas[0])), *map(torch.tensor, deltas)]
    result: list[float] = merge(METHODS[method], tensors, settings_for(METHODS[method], len(deltas), **values)).tolist()
    return result


def test_task_arithmetic_adds_what_changed() -> None:
    base, a, b = torch.tensor([1.0, 1.0]), torch.tensor([2.0, 1.0]), torch.tensor([1.0, 5.0])
    settings = settings_for(METHODS["task_arithmetic"], 2, weight=[1.0, 0.5], **{"lambda": 2.0})
    assert merge(METHODS["task_arithmetic"], [base, a, b], settings).tolist() == [3.0, 5.0]


def test_task_arithmetic_ignores_density() -> None:
    assert merged("task_arithmetic", [1.0, 2.0, 3.0], density=0.1) == [1.0, 2.0, 3.0]


def test_weights_that_cancel_divide_nothing() -> None:
    assert merged("task_arithmetic", [1.0], [3.0], weight=[1.0, -1.0], normalize=True) == [-2.0]


def test_ties_elects_the_heavier_sign_and_averages_over_it() -> None:
    assert merged("ties", [1.0, 1.0], [3.0, -4.0], [-2.0, 1.0]) == [2.0, -4.0]


def test_a_sum_of_zero_elects_plus() -> None:
    assert merged("ties", [1.0, -1.0], [-1.0, 1.0]) == [1.0, 1.0]
    assert merged("ties", [-0.0], [-0.0]) == [0.0]


def test_ties_divides_by_the_weights_that_took_part() -> None:
    assert merged("ties", [2.0, 0.0], [-1.0, 6.0], weight=[0.5, 0.25]) == [2.0, 6.0]
    assert merged("ties", [2.0, 0.0], [-1.0, 6.0], weight=[0.5, 0.25], normalize=False) == [1.0, 1.5]


def test_a_negative_weight_turns_the_sign_it_votes_for() -> None:
    assert merged("ties", [4.0], [1.0], weight=[-1.0, 1.0], normalize=False) == [-4.0]
    assert merged("ties", [4.0], [1.0], weight=[-1.0, 1.0]) == [4.0]


def test_kept_weights_that_cancel_divide_nothing() -> None:
    assert merged("ties", [-4.0], [1.0], weight=[-1.0, 1.0]) == [5.0]


def test_magnitude_keeps_the_largest_and_the_first_of_equal_ones() -> None:
    assert merged("ties", [1.0, -3.0, 2.0, -2.0, 0.5], density=0.4) == [0.0, -3.0, 2.0, 0.0, 0.0]


def test_magnitude_keeps_at_least_one_element_of_a_positive_density() -> None:
    assert merged("ties", [1.0, -3.0, 2.0], density=0.01) == [0.0, -3.0, 0.0]
    assert merged("ties", [1.0, -3.0, 2.0], density=0.0) == [0.0, 0.0, 0.0]
    assert merged("ties", [1.0, -3.0, 2.0], density=1.0) == [1.0, -3.0, 2.0]


def test_rescaling_restores_the_sum_of_magnitudes() -> None:
    assert merged("ties", [1.0, -3.0, 2.0, 0.0], density=0.25, rescale=True) == [0.0, -6.0, 0.0, 0.0]


def test_breadcrumbs_drops_outliers_and_crumbs() -> None:
    vector = [1.0, -10.0, 2.0, 3.0, -4.0]
    assert merged("breadcrumbs", vector, density=0.4, gamma=0.2) == [0.0, 0.0, 0.0, 3.0, -4.0]


def test_breadcrumbs_drops_fewer_outliers_rather_than_missing_its_density() -> None:
    assert merged("breadcrumbs", [1.0, -10.0, 2.0, 3.0, -4.0], density=0.8, gamma=0.9) == [1.0, 0.0, 2.0, 3.0, -4.0]


@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties"])
def test_breadcrumbs_checks_gamma(method: str) -> None:
    check = METHODS[method].check
    assert check is not None
    assert check(settings_for(METHODS[method], 2, gamma=[0.1, 1.5])) == "gamma is 1.5, but a share lies between 0 and 1"
    assert check(settings_for(METHODS[method], 2)) is None


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_della_checks_its_probabilities(method: str) -> None:
    check = METHODS[method].check
    assert check is not None
    expected = "density 0.9 ± epsilon 0.15 must lie between 0 and 1"
    assert check(settings_for(METHODS[method], 2, density=[0.5, 0.9])) == expected
    assert check(settings_for(METHODS[method], 2, density=[0.0, 1.0])) is None


def test_della_keeps_large_elements_likelier() -> None:
    ramp = torch.arange(1.0, 10_001.0).repeat(20, 1)
    settings = settings_for(METHODS["della_linear"], 1, density=0.5, epsilon=0.4, rescale=False)
    kept = merge(METHODS["della_linear"], [torch.zeros_like(ramp), ramp], settings) != 0
    tenths = kept.view(20, 10, 1_000).double().mean(dim=(0, 2))
    torch.testing.assert_close(tenths, torch.linspace(0.14, 0.86, 10).double(), atol=0.015, rtol=0)


def test_della_ranks_signs_apart_from_size() -> None:
    row = torch.tensor([[-5.0, 1.0, -3.0, 2.0]])
    settings = settings_for(METHODS["della_linear"], 1, density=0.5, rescale=False)
    flipped = merge(METHODS["della_linear"], [torch.zeros(1, 4), -row], settings)
    assert torch.equal(merge(METHODS["della_linear"], [torch.zeros(1, 4), row], settings), -flipped)


@pytest.mark.parametrize("method", RANDOM)
def test_random_choice_depends_on_seed_tensor_and_input_alone(method: str) -> None:
    vector = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    tensors = [torch.zeros(64, 64), vector, vector]
    settings = settings_for(METHODS[method], 2, weight=[1.0, 0.0], density=0.5, rescale=False)
    other_input = settings_for(METHODS[method], 2, weight=[0.0, 1.0], density=0.5, rescale=False)

    def kept(settings: object = settings, **options: object) -> Tensor:
        return merge(METHODS[method], tensors, settings, **options) != 0

    assert torch.equal(kept(), kept())
    assert not torch.equal(kept(), kept(seed=1))
    assert not torch.equal(kept(), kept(name="another.weight"))
    assert not torch.equal(kept(), kept(other_input))


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_random_choice_restores_the_sum_of_magnitudes(method: str) -> None:
    vector = torch.randn(300, 500, generator=torch.Generator().manual_seed(0))
    settings = settings_for(METHODS[method], 1, density=0.3)
    result = merge(METHODS[method], [torch.zeros_like(vector), vector], settings)
    assert (result != 0).double().mean().item() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(result.abs().sum(), vector.abs().sum())


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].parameter("int8_mask")])
def test_int8_mask_changes_nothing(method: str) -> None:
    tensors = [torch.randn(8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    plain, masked = (settings_for(METHODS[method], 2, int8_mask=value) for value in (False, True))
    assert torch.equal(merge(METHODS[method], tensors, plain), merge(METHODS[method], tensors, masked))


def test_ties_with_every_delta_equal_keeps_the_first_half() -> None:
    assert merged("ties", [1.0] * 6, density=0.5) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
