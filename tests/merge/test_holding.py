"""What is held while an expression is computed, and that it is computed once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from hubmerge.merge.evaluate import evaluate
from hubmerge.merge.expr import Expr, Load, Merge, RemapRows
from hubmerge.merge.holding import held_bytes_at_most, held_parts
from hubmerge.merge.methods.method import Settings
from hubmerge.merge.nodes import Bytes
from hubmerge.merge.row_map import row_map
from hubmerge.weights.header import TensorInfo

SIZE = 4 * 6 * 5
"""Bytes of a tensor of these tests."""


def load(parent: int) -> Load:
    return Load(parent, "model.safetensors", TensorInfo("w", "F32", (6, 5), 0, SIZE))


def linear(*inputs: Expr) -> Merge:
    settings = Settings(shared={"normalize": True}, inputs=tuple({"weight": 1.0} for _ in inputs))
    return Merge("linear", "w", inputs, has_base=False, settings=settings, seed=0, dtype="F32")


def slerp(one: Expr, other: Expr) -> Merge:
    settings = Settings(shared={"t": 0.5}, inputs=({},))
    return Merge("slerp", "w", (one, other), has_base=True, settings=settings, seed=0, dtype="F32")


class Counting:
    """Sources that hold their parent's number, and count how often they are read."""

    def __init__(self) -> None:
        self.reads: Counter[int] = Counter()

    def open(self, load: Load) -> Data:
        return Data(self.reads, load)


class Data:
    def __init__(self, reads: Counter[int], load: Load) -> None:
        self._reads, self._load = reads, load

    def read(self, start: int, stop: int) -> Bytes:
        self._reads[self._load.parent] += 1
        return np.full((stop - start) // 4, self._load.parent + 1, np.float32).view(np.uint8)


def values(expr: Expr, source: Counting) -> list[float]:
    return [float(value) for _, data in evaluate(expr, dtype="F32", source=source) for value in data.view(np.float32)]


def test_a_merge_that_two_branches_share_is_computed_once() -> None:
    shared, source = linear(load(0), load(1)), Counting()
    assert set(values(linear(linear(shared, load(2)), shared), source)) == {(2.25 + 1.5) / 2}
    assert source.reads == {0: 1, 1: 1, 2: 1}


def test_branches_that_meet_again_at_each_of_forty_steps_cost_no_more_than_the_steps() -> None:
    expr, source = linear(load(0), load(1)), Counting()
    for _ in range(40):
        expr = linear(expr, slerp(expr, load(0)))
    values(expr, source)
    assert source.reads[1] == 1


def test_what_is_streamed_is_not_held() -> None:
    expr = linear(linear(load(0), load(1)), linear(load(2), load(3)))
    assert (held_parts(expr), held_bytes_at_most(expr)) == ({}, 0)


def test_operands_of_a_method_that_measures_first_are_held_together() -> None:
    assert held_bytes_at_most(slerp(linear(load(0), load(1)), linear(load(2), load(3)))) == 2 * SIZE


def test_what_is_below_a_held_result_is_given_back_when_it_is_computed() -> None:
    def branch(first: int) -> Merge:
        return slerp(linear(load(first), load(first + 1)), linear(load(first + 2), load(first + 3)))

    assert held_bytes_at_most(slerp(branch(0), branch(4))) == 4 * SIZE


def test_a_result_in_fp64_takes_twice_the_memory() -> None:
    inner = replace(linear(load(0), load(1)), dtype=None, is_double=True)
    assert held_bytes_at_most(slerp(inner, load(2))) == 2 * SIZE


def test_a_shared_result_counts_once() -> None:
    shared = linear(load(0), load(1))
    assert held_bytes_at_most(slerp(linear(shared, load(2)), shared)) == 2 * SIZE


def test_a_merge_whose_rows_are_gathered_is_held() -> None:
    rows = RemapRows((linear(load(0), load(1)),), row_map([((0, 0),), ((0, 5),)]), (2, 5))
    assert held_bytes_at_most(linear(rows, rows)) == SIZE + SIZE // 3
