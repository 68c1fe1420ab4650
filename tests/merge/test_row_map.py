from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hubmerge.merge.evaluate import evaluate
from hubmerge.merge.expr import Expr, Load, Merge, RemapRows, loads
from hubmerge.merge.methods.method import BLOCK_ELEMENTS, Settings
from hubmerge.merge.nodes import Bytes
from hubmerge.merge.row_map import Pick, row_map
from hubmerge.weights.header import TensorInfo


class Memory:
    """Source tensors that are held, by the number of their parent."""

    def __init__(self, *tensors: Tensor) -> None:
        self._bytes = [tensor.contiguous().flatten().view(torch.uint8).numpy() for tensor in tensors]

    def open(self, load: Load) -> Held:
        return Held(self._bytes[load.parent])


@dataclass(frozen=True)
class Held:
    data: Bytes

    def read(self, start: int, stop: int) -> Bytes:
        return self.data[start:stop]


def load(parent: int, tensor: Tensor) -> Load:
    return Load(parent, "f", TensorInfo("x", "F32", tuple(tensor.shape), 0, 4 * tensor.numel()))


def remapped(rows: Sequence[Sequence[Pick] | None], *tensors: Tensor, shape: tuple[int, ...]) -> Tensor:
    expr = RemapRows(tuple(load(n, tensor) for n, tensor in enumerate(tensors)), row_map(rows), shape)
    return computed(expr, Memory(*tensors)).view(shape)


def computed(expr: Expr, memory: Memory) -> Tensor:
    blocks = [torch.from_numpy(data.copy()) for _, data in evaluate(expr, dtype="F32", source=memory)]
    return torch.cat(blocks).view(torch.float32)


@pytest.fixture
def tables() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(700, 512, generator=generator) for _ in range(2))
    assert math.prod(first.shape) > 2 * BLOCK_ELEMENTS
    return first, second


def test_rows_come_in_any_order_from_any_input(tables: tuple[Tensor, Tensor]) -> None:
    order = torch.randperm(1400, generator=torch.Generator().manual_seed(1)).tolist()
    rows = [[divmod(number, 700)] for number in order]
    assert torch.equal(remapped(rows, *tables, shape=(1400, 512)), torch.cat(tables)[order])


def test_a_row_is_the_mean_of_its_picks_and_zeros_without(tables: tuple[Tensor, Tensor]) -> None:
    rows = [[(0, 3), (1, 5), (1, 699)], [], [(1, 0)]]
    result = remapped(rows, *tables, shape=(3, 512))
    torch.testing.assert_close(result[0], torch.stack([tables[0][3], tables[1][5], tables[1][699]]).mean(0))
    assert not result[1].any()
    assert torch.equal(result[2], tables[1][0])


def test_a_filled_row_is_the_mean_of_the_rows_of_all_blocks(tables: tuple[Tensor, Tensor]) -> None:
    rows = [None, *([(0, row)] for row in range(700)), [], None]
    result = remapped(rows, tables[0], shape=(703, 512))
    mean = tables[0].double().sum(0) / 701
    torch.testing.assert_close(result[0], mean.float())
    assert torch.equal(result[0], result[702])
    assert torch.equal(result[1:701], tables[0])


@pytest.mark.parametrize("shape", [(4,), (1, 4)])
def test_elements_of_a_bias_are_rows(shape: tuple[int, ...]) -> None:
    bias = torch.tensor([1.0, 2.0, 4.0]).view((3,) if len(shape) == 1 else (1, 3))
    result = remapped([[(0, 2)], [(0, 0), (0, 1)], None, []], bias, shape=shape)
    torch.testing.assert_close(result.flatten(), torch.tensor([4.0, 1.5, 5.5 / 3, 0.0]))


def test_rows_of_a_merge_are_those_of_its_result(tables: tuple[Tensor, Tensor]) -> None:
    settings = Settings(shared={"normalize": True}, inputs=({"weight": 1.0}, {"weight": 3.0}))
    merge = Merge("linear", "x", (load(0, tables[0]), load(1, tables[1])), has_base=False, settings=settings, seed=0)
    order = list(range(699, -1, -7))
    expr = RemapRows((merge,), row_map([[(0, row)] for row in order]), (len(order), 512))
    assert torch.equal(
        computed(expr, Memory(*tables)).view(-1, 512), computed(merge, Memory(*tables)).view(-1, 512)[order]
    )
    assert loads(expr) == loads(merge)


def test_equal_maps_have_equal_digests_and_others_not() -> None:
    assert row_map([[(0, 1)], None]).digest == row_map([[(0, 1)], None]).digest
    assert len({row_map(rows).digest for rows in ([[(0, 1)]], [[(1, 0)]], [[(0, 1)], None], [[(0, 1)], []])}) == 4
