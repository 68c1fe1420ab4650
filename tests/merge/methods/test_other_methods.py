"""model_stock, nearswap, ram, ramplus_tl, arcee_fusion and sce on literal numbers."""

from __future__ import annotations

import pytest
import torch

from hubmerge.merge.methods import METHODS
from tests.merge.methods.operands import merge, settings_for


def merged(method: str, *tensors: list, **values: object) -> list:
    """Merges tensors of which the first is the base."""
    settings = settings_for(METHODS[method], len(tensors) - 1, **values)
    return merge(METHODS[method], list(map(torch.tensor, tensors)), settings).tolist()


def test_model_stock_goes_all_the_way_to_models_that_agree() -> None:
    assert merged("model_stock", [0.0, 0.0], [1.0, 0.0], [3.0, 0.0]) == pytest.approx([2.0, 0.0])


def test_model_stock_stays_at_the_base_for_models_at_right_angles() -> None:
    assert merged("model_stock", [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]) == [0.0, 0.0]


def test_model_stock_stays_at_the_base_for_opposite_models() -> None:
    assert merged("model_stock", [1.0, 1.0], [2.0, 1.0], [0.0, 1.0]) == [1.0, 1.0]


def test_model_stock_gives_each_row_its_own_ratio() -> None:
    base, a, b = [[0.0, 0.0]] * 2, [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    assert merged("model_stock", base, a, b, filter_wise=True) == [[1.0, 0.0], [0.0, 0.0]]


def test_nearswap_moves_by_at_most_t() -> None:
    assert merged("nearswap", [0.0] * 4, [0.05, -0.05, 3.0, -3.0], t=0.1) == pytest.approx([0.05, -0.05, 0.1, -0.1])


def test_nearswap_with_a_tiny_t_does_not_swap_equal_values() -> None:
    assert merged("nearswap", [1.0, 1.0], [1.0, 2.0], t=5e-7) == pytest.approx([1.0, 1.0 + 5e-7])


def test_nearswap_checks_t() -> None:
    check = METHODS["nearswap"].check
    assert check is not None
    assert check(settings_for(METHODS["nearswap"], 1, t=-0.1)) == "t is -0.1, but must not be negative"


def test_ram_averages_only_over_models_that_changed_an_element() -> None:
    base, a, b = [0.0, 0.0, 0.0], [2.0, 2.0, 0.1], [0.0, 4.0, 0.1]
    assert merged("ram", base, a, b, epsilon=0.5) == [2.0, 3.0, 0.0]


def test_ramplus_amplifies_what_one_model_changed() -> None:
    base, a, b = [0.0] * 4, [2.0, 2.0, 2.0, 0.0], [0.0, 4.0, 0.0, 1.0]
    result = merged("ramplus_tl", base, a, b, r=0.5, alpha=0.8)
    assert result == pytest.approx([2.0 * 1.25, 3.0, 2.0 * 1.25, 1.0 * 1.4])


@pytest.mark.parametrize(("method", "name"), [("ram", "epsilon"), ("ramplus_tl", "epsilon"), ("ramplus_tl", "alpha")])
def test_ram_checks_its_numbers(method: str, name: str) -> None:
    check = METHODS[method].check
    assert check is not None
    assert check(settings_for(METHODS[method], 2, **{name: -1.0})) == f"{name} is -1.0, but must not be negative"
    assert check(settings_for(METHODS[method], 2)) is None


def test_arcee_fusion_takes_what_stands_out() -> None:
    base = torch.zeros(40)
    tuned = torch.full((40,), 0.01)
    tuned[::2] = 0.02
    tuned[3] = 5.0
    result = merged("arcee_fusion", base.tolist(), tuned.tolist())
    assert result == [5.0 if index == 3 else 0.0 for index in range(40)]


def test_arcee_fusion_takes_everything_when_nothing_stands_out() -> None:
    assert merged("arcee_fusion", [0.0, 1.0], [0.0, 1.0]) == [0.0, 1.0]


def test_sce_weights_models_by_their_energy() -> None:
    result = merged("sce", [0.0, 0.0], [1.0, 1.0], [3.0, 0.0])
    energies = [1.0, 4.5]
    assert result == pytest.approx([(1.0 * energies[0] + 3.0 * energies[1]) / sum(energies), 1.0])


def test_sce_weights_models_equally_where_next_to_nothing_changed() -> None:
    assert merged("sce", [0.0], [1e-4], [3e-4]) == pytest.approx([2e-4])


def test_sce_selects_where_models_differ() -> None:
    assert merged("sce", [0.0] * 4, [1.0, 5.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], select_topk=0.5)[::2] == [0.0, 0.0]


def test_sce_selects_nothing_where_models_agree() -> None:
    assert merged("sce", [0.0, 0.0], [1.0, 2.0], [1.0, 2.0], select_topk=0.5) == [0.0, 0.0]


def test_sce_erases_the_minority_direction() -> None:
    assert merged("sce", [0.0, 0.0], [3.0, 1.0], [-1.0, 1.0])[0] == 3.0
