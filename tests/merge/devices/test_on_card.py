"""What is computed on a card against what the host computes: by every method, in several dtypes, in larger blocks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from hubmerge.merge.evaluate import evaluate
from hubmerge.merge.expr import AddLora, Dithered, Merge, Random, RemapRows
from hubmerge.merge.methods.masks import lanes, mask_key
from hubmerge.merge.methods.method import BLOCK_ELEMENTS, Block, blocks_of
from hubmerge.merge.nodes import Bytes
from hubmerge.merge.on_card import evaluate_on_card, is_for_card
from hubmerge.merge.row_map import row_map
from hubmerge.merge.watch import Inputs, Values
from tests.merge.devices.cards import HostCard, Memory, load_of, loads_of, merge_of, on_card, on_host
from tests.merge.devices.made_up_cuda import CUDA, MadeUpCard, MadeUpCuda
from tests.merge.methods.cases import CASES, Case
from tests.merge.native.stored import same_bits

every_case = pytest.mark.parametrize("case", CASES, ids=str)
SMALL = (37, 61)
LARGE = (1_025, 333)
"""Three blocks that begin at odd elements."""
TIES = Case("ties", 4, True, {"weight": [0.5, 0.75, 0.25], "density": 0.4})
DARE = Case("dare_ties", 4, True, {"weight": 0.5, "density": 0.5})
SLERP = Case("slerp", 2, True, {"t": 0.3})
MEAN = Case("linear", 2, False, {"weight": 0.5})
rooms = pytest.mark.parametrize("room_bytes", [1 << 40, 0], ids=["room", "no room"])


def test_large_means_several_blocks() -> None:
    assert LARGE[0] * LARGE[1] > 2 * BLOCK_ELEMENTS


@every_case
@pytest.mark.parametrize("code", ["BF16", "F32"])
def test_a_card_gives_the_hosts_bits_where_it_computes_like_the_host(case: Case, code: str) -> None:
    loads, memory = loads_of([tensor.to(_dtype(code)) for tensor in case.tensors(SMALL)])
    merge = merge_of(case, loads)
    assert same_bits(on_card(merge, memory, code, HostCard()), on_host(merge, memory, code))


@every_case
def test_nothing_of_a_method_mistakes_a_card_for_the_host(case: Case) -> None:
    loads, memory = loads_of([tensor.bfloat16() for tensor in case.tensors(SMALL)])
    merge = merge_of(case, loads)
    expected = on_host(merge, memory, "BF16")
    with MadeUpCuda():
        found = on_card(merge, memory, "BF16", MadeUpCard())
    assert same_bits(found, expected)


@pytest.mark.parametrize("case", {case.method: case for case in CASES}.values(), ids=str)
def test_larger_blocks_change_no_more_than_the_last_place(case: Case) -> None:
    loads, memory = loads_of([tensor.bfloat16() for tensor in case.tensors(LARGE)])
    merge = merge_of(case, loads)
    expected = on_host(merge, memory, "F32")
    with MadeUpCuda():
        found = on_card(merge, memory, "F32", MadeUpCard(block_elements=1 << 22))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_columns_of_a_convolution_are_interpolated_on_the_card() -> None:
    case = Case("nuslerp", 2, False, {"weight": [0.2, 0.6], "nuslerp_flatten": False, "nuslerp_row_wise": True})
    loads, memory = loads_of([tensor.bfloat16() for tensor in case.tensors((5, 7, 31))])
    merge = merge_of(case, loads)
    expected = on_host(merge, memory, "BF16")
    with MadeUpCuda():
        assert same_bits(on_card(merge, memory, "BF16", MadeUpCard()), expected)


@pytest.mark.parametrize("case", [TIES, DARE], ids=str)
def test_what_stays_on_the_card_is_sent_once(case: Case) -> None:
    loads, memory = loads_of([tensor.bfloat16() for tensor in case.tensors(LARGE)])
    merge = merge_of(case, loads)
    kept, narrow = HostCard(), HostCard(room_bytes=0)
    expected = on_host(merge, memory, "BF16")
    assert same_bits(on_card(merge, memory, "BF16", kept), expected)
    assert same_bits(on_card(merge, memory, "BF16", narrow), expected)
    assert kept.sent_bytes == sum(load.tensor.size_bytes for load in loads)
    assert narrow.sent_bytes >= 2 * kept.sent_bytes


@rooms
@pytest.mark.parametrize("is_double", [False, True], ids=["fp32", "fp64"])
@pytest.mark.parametrize("dtype", [None, "F16"])
def test_merges_within_merges_are_the_hosts(dtype: str | None, room_bytes: int, *, is_double: bool) -> None:
    tree, memory = _tree(dtype, is_double=is_double)
    expected = on_host(tree, memory, "BF16")
    with MadeUpCuda():
        assert same_bits(on_card(tree, memory, "BF16", MadeUpCard(room_bytes=room_bytes)), expected)


def _tree(dtype: str | None, *, is_double: bool) -> tuple[Merge, Memory]:
    loads, memory = loads_of([tensor.bfloat16() for tensor in TIES.tensors(SMALL)])
    inner = replace(merge_of(DARE, loads, dtype=dtype), is_double=is_double)
    return merge_of(SLERP, (inner, loads[2])), memory


@rooms
def test_branches_that_meet_again_at_each_of_forty_steps_cost_no_more_than_the_steps(room_bytes: int) -> None:
    (first, second, *_), memory = loads_of([tensor.float() for tensor in TIES.tensors(SMALL)])
    tree = merge_of(MEAN, (first, second))
    for _ in range(40):
        tree = merge_of(MEAN, (tree, merge_of(SLERP, (tree, first))), dtype="F32")
    expected = on_host(tree, memory, "F32")
    memory.reads.clear()
    with MadeUpCuda():
        assert same_bits(on_card(tree, memory, "F32", MadeUpCard(room_bytes=room_bytes)), expected)
    assert memory.reads[second.tensor.name] == 1


@rooms
def test_a_merge_whose_rows_are_gathered_is_computed_once_for_host_and_card(room_bytes: int) -> None:
    loads, memory = loads_of([tensor.float() for tensor in TIES.tensors(SMALL)])
    inner = merge_of(TIES, loads, dtype="BF16")
    turned = RemapRows((inner,), row_map([[(0, row)] for row in reversed(range(SMALL[0]))]), SMALL)
    tree = merge_of(SLERP, (merge_of(MEAN, (inner, turned)), inner))
    expected = on_host(tree, memory, "F32")
    on_host_alone = memory.reads.copy()
    memory.reads.clear()
    with MadeUpCuda():
        assert same_bits(on_card(tree, memory, "F32", MadeUpCard(room_bytes=room_bytes)), expected)
    assert memory.reads == on_host_alone


def test_an_adapter_is_added_on_the_card() -> None:
    (weight, *others), memory = loads_of([tensor.bfloat16() for tensor in TIES.tensors(SMALL)])
    generator = torch.Generator().manual_seed(1)
    factors = {"a": torch.randn(4, SMALL[1], generator=generator), "b": torch.randn(SMALL[0], 4, generator=generator)}
    memory.tensors.update(factors)
    adapted = AddLora(weight, load_of("a", factors["a"]), load_of("b", factors["b"]), 0.5, is_transposed=False)
    for expr in (adapted, merge_of(TIES, (others[0], adapted, *others[1:]))):
        expected = on_host(expr, memory, "BF16")
        with MadeUpCuda():
            assert same_bits(on_card(expr, memory, "BF16", MadeUpCard()), expected)


@pytest.mark.parametrize("code", ["BF16", "F16", "F32"])
def test_random_rounding_is_the_hosts(code: str) -> None:
    loads, memory = loads_of([tensor.bfloat16() for tensor in TIES.tensors(SMALL)])
    expr = Dithered(merge_of(TIES, loads), "w", 5)
    expected = on_host(expr, memory, code)
    with MadeUpCuda():
        assert same_bits(on_card(expr, memory, code, MadeUpCard()), expected)


def test_random_rows_and_gathered_rows_are_made_on_the_host_and_merged_on_the_card() -> None:
    loads, memory = loads_of([tensor.bfloat16() for tensor in TIES.tensors(SMALL)])
    rows = row_map([[(0, row)] for row in reversed(range(SMALL[0]))])
    turned = RemapRows((loads[1],), rows, SMALL)
    noise = Random("noise", SMALL, 1, "normal", 0.1)
    expr = merge_of(Case("linear", 3, False, {"weight": 0.5}), (loads[0], turned, noise))
    expected = on_host(expr, memory, "BF16")
    with MadeUpCuda():
        assert same_bits(on_card(expr, memory, "BF16", MadeUpCard()), expected)


def test_only_arithmetic_goes_to_a_card() -> None:
    (load, *_), _ = loads_of(TIES.tensors(SMALL))
    merge = merge_of(Case("passthrough", 1, False, {"scale": 0.5}), (load,))
    assert [is_for_card(expr) for expr in (merge, Dithered(merge, "w", 1), load, Dithered(load, "w", 1))] == [
        True,
        True,
        False,
        False,
    ]


def test_masks_are_the_same_wherever_they_are_made() -> None:
    key, block = mask_key(1, "w", 2), Block(333, 333 * 40, 333)
    expected = lanes(key, block, torch.device("cpu"))
    with MadeUpCuda():
        found = lanes(key, block, CUDA).numpy(force=True)
    assert found.tolist() == expected.tolist()


@dataclass
class Looking:
    """A watch that keeps what it is shown."""

    blocks: list[Block] = field(default_factory=list)
    operands: list[list[Values]] = field(default_factory=list)
    kept: list[list[Values]] = field(default_factory=list)

    def computed(self, block: Block, _result: Bytes, inputs: Inputs) -> None:
        self.blocks.append(block)
        self.operands.append(inputs.operands(block))
        self.kept.append(list(inputs.kept(block) or []))

    def copied(self, _data: Bytes) -> None:
        raise AssertionError("nothing is copied here")

    def finish(self) -> None:
        """Does nothing."""


@pytest.mark.parametrize("case", [TIES, DARE, Case("sce", 3, True, {"select_topk": 0.2})], ids=str)
def test_who_looks_on_sees_blocks_of_the_host_with_the_same_values(case: Case) -> None:
    loads, memory = loads_of([tensor.bfloat16() for tensor in case.tensors(LARGE)])
    host, card = Looking(), Looking()
    merge = merge_of(case, loads)
    list(evaluate(merge, dtype="BF16", source=memory, watch=host))
    with MadeUpCuda():
        list(evaluate_on_card(merge, dtype="BF16", source=memory, card=MadeUpCard(block_elements=1 << 22), watch=card))
    assert card.blocks == list(blocks_of(LARGE))
    for mine, theirs in ((host.operands, card.operands), (host.kept, card.kept)):
        pairs = zip(zip(*mine, strict=True), zip(*theirs, strict=True), strict=True)
        assert all(np.array_equal(np.concatenate(a), np.concatenate(b)) for a, b in pairs)


def _dtype(code: str) -> torch.dtype:
    return {"BF16": torch.bfloat16, "F32": torch.float32}[code]


@pytest.mark.parametrize("code", ["F64", "F32"])
def test_a_recipe_may_ask_for_fp64(code: str) -> None:
    loads, memory = loads_of([torch.full(SMALL, value) for value in (2.0**25, 1.0, -(2.0**25))])
    total = Case("linear", 3, False, {"weight": 1.0, "normalize": False})
    merge = replace(merge_of(total, loads, dtype=code), is_double=True)
    with MadeUpCuda():
        found = on_card(merge, memory, code, MadeUpCard())
    assert found.tolist() == on_host(merge, memory, code).tolist() == [1.0] * found.numel()


def test_fp64_stays_fp64() -> None:
    tensors: list[Tensor] = [tensor.double() + 1e-12 for tensor in TIES.tensors(SMALL)]
    loads, memory = loads_of(tensors)
    merge = merge_of(TIES, loads)
    with MadeUpCuda():
        found = on_card(merge, memory, "F64", MadeUpCard())
    torch.testing.assert_close(found, on_host(merge, memory, "F64"), rtol=1e-14, atol=1e-14)
