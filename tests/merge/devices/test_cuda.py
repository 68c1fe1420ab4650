"""A real CUDA device against the host, by every method; runs where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hubmerge.merge.devices import CudaCard, find_cards
from hubmerge.merge.evaluate import evaluate
from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.masks import lanes, mask_key
from hubmerge.merge.methods.method import Block
from hubmerge.merge.on_card import evaluate_on_card
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.verify.cards import DECIDING, NEAR_TIES, ULPS
from hubmerge.verify.compare import Differences
from tests.checkpoints import read_tensors
from tests.merge.devices.cards import loads_of, merge_of, on_card, on_host
from tests.merge.devices.test_on_card import DARE, LARGE, TIES, Looking
from tests.merge.merging import ulps
from tests.merge.methods.cases import CASES, Case
from tests.merge.recipes import whole

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("code", ["BF16", "F32"])
def test_every_method_stays_within_the_stated_tolerance(case: Case, code: str) -> None:
    loads, memory = loads_of([tensor.bfloat16() for tensor in case.tensors(LARGE)])
    merge = merge_of(case, loads)
    found = Differences(code, ULPS[code])
    expected, ours = on_host(merge, memory, code), on_card(merge, memory, code, CudaCard(0))
    found.add(*(tensor.view(torch.uint8).numpy() for tensor in (expected, ours)))
    share = NEAR_TIES if case.method in DECIDING else 0
    assert found.beyond <= share * found.looked_at


def test_random_numbers_are_the_same_bits() -> None:
    for start in (0, 1, 2**33 + 3):
        key, block = mask_key(1, "w", 2), Block(start, start + 100_001, 100_001)
        expected = lanes(key, block, torch.device("cpu"))
        assert torch.equal(lanes(key, block, CudaCard(0).device).cpu(), expected)


@pytest.mark.parametrize("case", [case for case in CASES if METHODS[case.method].thinned] + [TIES, DARE], ids=str)
def test_masks_are_the_same(case: Case) -> None:
    loads, memory = loads_of([tensor.bfloat16() for tensor in case.tensors(LARGE)])
    merge = merge_of(case, loads)
    host, card = Looking(), Looking()
    list(evaluate(merge, dtype="BF16", source=memory, watch=host))
    list(evaluate_on_card(merge, dtype="BF16", source=memory, card=CudaCard(0), watch=card))
    for mine, theirs in zip(zip(*host.kept, strict=True), zip(*card.kept, strict=True), strict=True):
        assert np.array_equal(np.concatenate(mine) != 0, np.concatenate(theirs) != 0)


def test_a_whole_merge_on_every_card(llamas: tuple[Path, Path, Path], tmp_path: Path) -> None:
    assert find_cards("cuda")
    recipe = whole("slerp", *llamas[:2], base_model=llamas[0], parameters={"t": 0.3})
    for device in ("cpu", "cuda"):
        merge_to_folder(recipe, tmp_path / device, options=MergeOptions(device=device))
    host, card = (read_tensors(tmp_path / device) for device in ("cpu", "cuda"))
    assert all(ulps(tensor, card[name]) <= 1 for name, tensor in host.items())
