"""Random masks: the published hash, reproducible to the bit, and without structure that a merge could feel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hubmerge.merge.methods.masks import MaskKey, keep_random, lane_limit, lanes, mask_key
from hubmerge.merge.methods.method import Block

CPU = torch.device("cpu")
COUNT = 1 << 18
KEY = mask_key(0, "model.layers.0.mlp.up_proj.weight", 0)


def span(start: int, stop: int) -> Block:
    return Block(start, stop, stop - start)


def mask(key: MaskKey, probability: float = 0.5, count: int = COUNT) -> NDArray[np.float64]:
    return keep_random(torch.ones(count), span(0, count), key=key, probability=probability).double().numpy()


def triple32(x: NDArray[np.uint32], key: MaskKey) -> NDArray[np.uint32]:
    """Chris Wellons' hash in plain unsigned arithmetic, with the two keys."""
    x = x ^ np.uint32(key.first % 2**32)
    x = (x ^ (x >> np.uint32(17))) * np.uint32(0xED5AD4BB)
    x = (x ^ (x >> np.uint32(11)) ^ np.uint32(key.second % 2**32)) * np.uint32(0xAC4C1B51)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x31848BAB)
    return x ^ (x >> np.uint32(14))


def test_keys_and_lanes_are_these_numbers_for_ever() -> None:
    key = MaskKey(203_411_059, 17_203_363)
    assert mask_key(42, "lm_head.weight", 1) == key
    assert lanes(key, span(0, 8), CPU).tolist() == [-3493, -30462, 28767, -32649, 11396, -20353, -12542, -11273]


def test_hash_without_keys() -> None:
    assert triple32(np.arange(3, dtype=np.uint32), MaskKey(0, 0)).tolist() == [0, 69_681_622, 4_057_983_209]


def test_lanes_are_the_halves_of_the_hash() -> None:
    hashed = triple32(np.arange(500, dtype=np.uint32), KEY)
    assert lanes(KEY, span(0, 1_000), CPU).tolist() == hashed.view(np.int16).tolist()


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 2), (3, 10), (998, 1_000), (7, 7 + 512)])
def test_a_block_may_begin_and_end_at_any_element(start: int, stop: int) -> None:
    whole = lanes(KEY, span(0, 1_000), CPU)
    assert torch.equal(lanes(KEY, span(start, stop), CPU), whole[start:stop])


def test_the_index_wraps_at_two_to_the_32_pairs() -> None:
    end = 2**33
    wrapped = lanes(KEY, span(end - 3, end + 3), CPU)
    assert torch.equal(wrapped[3:], lanes(KEY, span(0, 3), CPU))
    assert torch.equal(wrapped[:3], lanes(KEY, span(end - 3, end), CPU))


@pytest.mark.parametrize("probability", [1e-4, 0.1, 0.5, 0.9, 0.99999])
def test_the_share_kept_is_the_probability(probability: float) -> None:
    deviation = (probability * (1 - probability) / COUNT) ** 0.5
    assert abs(mask(KEY, probability).mean() - probability) < 4 * deviation + 1 / 65_536


def test_kept_elements_are_unchanged_and_others_zero() -> None:
    values = torch.randn(1_001, generator=torch.Generator().manual_seed(0))
    result = keep_random(values.clone(), span(0, 1_001), key=KEY, probability=0.5)
    assert set(torch.where(result == 0, values, result).tolist()) == set(values.tolist())
    assert 400 < result.count_nonzero() < 600


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 64, 4_096])
def test_elements_of_a_mask_do_not_correlate(lag: int) -> None:
    centred = mask(KEY) - 0.5
    assert abs((centred[:-lag] * centred[lag:]).mean() / 0.25) < 4 / COUNT**0.5


@pytest.mark.parametrize("other", [mask_key(0, "w", 1), mask_key(1, "w", 0), mask_key(0, "v", 0)])
def test_masks_of_other_inputs_seeds_and_tensors_are_independent(other: MaskKey) -> None:
    a, b = mask(mask_key(0, "w", 0)) - 0.5, mask(other) - 0.5
    assert abs((a * b).mean() / 0.25) < 4 / COUNT**0.5
    assert abs((a[1:] * b[:-1]).mean() / 0.25) < 4 / COUNT**0.5


def test_all_16_bits_are_uniform() -> None:
    counts = np.bincount(lanes(KEY, span(0, COUNT), CPU).numpy().astype(np.int64) + 32_768 >> 8, minlength=256)
    chi_squared = ((counts - COUNT / 256) ** 2 / (COUNT / 256)).sum()
    assert 160 < chi_squared < 360  # 255 degrees of freedom


def test_keys_do_not_run_together() -> None:
    assert mask_key(1, "1", 11) != mask_key(11, "1", 1) != mask_key(1, "11", 1)


def test_limits_cover_the_range() -> None:
    assert [lane_limit(probability) for probability in (0.0, 0.5, 0.999999)] == [-32_768, 0, 32_767]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same_lanes() -> None:
    block = span(77, 100_001)
    assert torch.equal(lanes(KEY, block, torch.device("cuda")).cpu(), lanes(KEY, block, CPU))
