from __future__ import annotations

import math

import pytest
import torch

from hubmerge.trainer.data_checks import Encoded
from hubmerge.trainer.proof import Scores, measure, wilson


def pair(chosen: int, rejected: int) -> Encoded:
    return Encoded((1, 2), tuple(range(chosen)), tuple(range(rejected)))


def test_metrics_of_four_pairs_by_hand() -> None:
    pairs = [pair(3, 2), pair(3, 2), pair(2, 3), pair(2, 2)]
    reference = Scores((-1.0, -1.0, -1.0, -1.0), (-1.0, -1.0, -1.0, -1.0))
    policy = Scores((-0.5, -1.0, -2.0, -0.5), (-1.5, -2.0, -1.0, -0.5))
    found = measure(policy, reference, pairs, beta=0.5)
    assert found.accuracy == (1 + 1 + 0 + 0.5) / 4
    assert found.margin == pytest.approx(0.5 * (1 + 1 - 1 + 0) / 4)
    assert found.chosen_log_ratio == pytest.approx((0.5 + 0 - 1 + 0.5) / 4)
    assert found.length_controlled_accuracy == pytest.approx((1 + 0.25) / 2)
    assert found.kl is None
    assert not found.is_significant


def test_divergence_is_exact_over_the_vocabulary() -> None:
    policy, reference = (torch.log_softmax(torch.tensor(rows), -1) for rows in ([[1.0, 0.0]], [[0.0, 0.0]]))
    p = math.exp(1) / (math.exp(1) + 1)
    expected = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    found = measure(Scores((-1.0,), (-2.0,), policy), Scores((-1.0,), (-1.0,), reference), [pair(1, 1)], beta=1.0)
    assert found.kl == pytest.approx(expected)
    assert found.kl_tokens == 1


def test_interval_of_a_share() -> None:
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0.0, 0) == (0.0, 1.0)


def test_one_pair_proves_nothing() -> None:
    found = measure(Scores((0.0,), (-9.0,)), Scores((-1.0,), (-1.0,)), [pair(1, 1)], beta=1.0)
    assert not found.is_significant
