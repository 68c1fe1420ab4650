from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hubmerge.diagnostics.finite import count_non_finite
from hubmerge.diagnostics.statistics import (
    SAMPLE_ELEMENTS,
    SAMPLES,
    Sums,
    cosines,
    distances,
    kept_shares,
    measure,
    relative_norms,
    sampled,
    sign_conflict,
    sums_from_json,
    sums_to_json,
    task_vector_cosines,
)
from hubmerge.merge.methods.method import Block, blocks_of
from tests.diagnostics.made_up import noise

BASE = noise(0)
TUNED = [BASE + noise(1, 0.01), BASE + noise(2, 0.02), BASE + noise(1, 0.01) + noise(3, 0.005)]
MODELS = [BASE, *TUNED]
DELTAS = [(model - BASE).double().numpy() for model in TUNED]


@pytest.fixture
def sums() -> Sums:
    """Taken in two parts, as over two blocks."""
    halves = ([model[:1500].clone() for model in MODELS], [model[1500:].clone() for model in MODELS])
    return measure(halves[0], None) + measure(halves[1], None)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_relative_norms_are_those_of_the_task_vectors(sums: Sums) -> None:
    direct = [np.linalg.norm(delta) / np.linalg.norm(BASE.double()) for delta in DELTAS]
    np.testing.assert_allclose(relative_norms(sums), direct, rtol=1e-12)


def test_cosines_are_those_of_the_models(sums: Sums) -> None:
    arrays = [model.double().numpy() for model in MODELS]
    np.testing.assert_allclose(cosines(sums), [[cosine(a, b) for b in arrays] for a in arrays], rtol=1e-8)


def test_cosines_of_task_vectors(sums: Sums) -> None:
    np.testing.assert_allclose(
        task_vector_cosines(sums), [[cosine(a, b) for b in DELTAS] for a in DELTAS], rtol=1e-9, atol=1e-12
    )


def test_distances_are_relative_to_the_first_of_each_pair(sums: Sums) -> None:
    arrays = [model.double().numpy() for model in MODELS]
    direct = [[np.linalg.norm(a - b) / np.linalg.norm(a) for b in arrays] for a in arrays]
    np.testing.assert_allclose(distances(sums), direct, rtol=1e-6, atol=1e-9)


def test_sign_conflict_is_that_of_the_pairs_beside_chance(sums: Sums) -> None:
    pairs = [(0, 1), (0, 2), (1, 2)]
    rate = np.mean([np.mean(DELTAS[i] * DELTAS[j] < 0) for i, j in pairs])
    shares = [np.mean(delta > 0) for delta in DELTAS]
    chance = np.mean([shares[i] * (1 - shares[j]) + (1 - shares[i]) * shares[j] for i, j in pairs])
    conflict = sign_conflict(sums)
    assert conflict is not None
    assert (conflict.rate, conflict.chance) == (pytest.approx(rate), pytest.approx(chance))


def test_elements_that_only_one_task_vector_changes_are_no_conflict() -> None:
    sums = measure([torch.zeros(4), torch.tensor([1.0, 1, 0, 0]), torch.tensor([-1.0, 1, 1, 0])], None)
    conflict = sign_conflict(sums)
    assert conflict is not None
    assert conflict.rate == 0.5


def test_shares_kept_count_changed_elements_only() -> None:
    tensors = [torch.zeros(4), torch.tensor([1.0, 2, 3, 0])]
    assert kept_shares(measure(tensors, [torch.tensor([0.0, 2, 3, 0])])) == (2 / 3,)
    assert kept_shares(measure(tensors, None)) is None


def test_equal_models_have_no_distance_and_no_direction() -> None:
    sums = measure([BASE, BASE.clone()], None)
    assert distances(sums).max() == 0
    assert relative_norms(sums) == (0.0,)
    assert np.isnan(task_vector_cosines(sums)).all()


def test_a_zero_reference_has_no_relative_norm() -> None:
    assert relative_norms(measure([torch.zeros(3), torch.ones(3)], None)) == (None,)


def test_sums_survive_json_to_the_bit(sums: Sums) -> None:
    again = sums_from_json(json.loads(json.dumps(sums_to_json(sums))), models=sums.models)
    assert all(np.array_equal(getattr(again, name), getattr(sums, name)) for name in ("dots", "signs", "both", "kept"))


@pytest.mark.parametrize("shape", [(), (7,), (4, 4), (4096, 4096), (32_000, 4096), (2, 300_000), (64, 3, 16, 16)])
def test_a_sample_is_few_blocks_whatever_the_size(shape: tuple[int, ...]) -> None:
    chosen, blocks = sampled(shape), {block.start: block for block in blocks_of(shape)}
    assert [part.start for part in chosen] == [start for start in blocks if start in {part.start for part in chosen}]
    assert len(chosen) == min(SAMPLES, len(blocks))
    for part in chosen:
        assert part.start < part.stop <= blocks[part.start].stop
        assert part.elements <= max(SAMPLE_ELEMENTS, part.row_length)
        assert part.elements % part.row_length == 0


def test_an_empty_tensor_has_no_sample() -> None:
    assert sampled((0, 5)) == []


def test_the_first_block_is_always_looked_at() -> None:
    assert Block(0, 4_096, 4096) in sampled((4096, 4096))


@pytest.mark.parametrize(
    ("code", "dtype"),
    [("F16", torch.float16), ("BF16", torch.bfloat16), ("F32", torch.float32), ("F64", torch.float64)],
)
def test_values_that_are_not_finite_are_counted(code: str, dtype: torch.dtype) -> None:
    values = torch.tensor([1.0, float("nan"), -float("inf"), float("inf"), 0.0, -0.0], dtype=dtype)
    limits = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).tiny], dtype=dtype)
    counts = [count_non_finite(each.view(torch.uint8).numpy(), code) for each in (values, limits, values[:0])]
    assert counts == [3, 0, 0]
