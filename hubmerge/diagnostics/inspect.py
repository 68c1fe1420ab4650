"""Statistics of a recipe's models before anything is merged, from ranges of a few tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from hubmerge.diagnostics.collect import cell_of
from hubmerge.diagnostics.diagnostics import Cell, Diagnostics, gather
from hubmerge.diagnostics.operands import leaf_merge, operand_names
from hubmerge.diagnostics.roles import role_of
from hubmerge.diagnostics.statistics import measure
from hubmerge.merge.evaluate import open_operands
from hubmerge.merge.expr import Load, Merge, RemapRows
from hubmerge.merge.layers import LayerStack, layer_index, main_stack
from hubmerge.merge.methods.method import Block
from hubmerge.merge.plan import OutputTensor, Plan
from hubmerge.merge.watch import Bytes, Values
from hubmerge.weights.files import Files

DEFAULT_SHARE = 0.01
MOST_ELEMENTS = 65_536
"""Of one tensor: enough whatever its size."""


@dataclass(frozen=True)
class Sample:
    """How much of the models is read.

    Attributes:
        share: Of each tensor's rows, at least one row and at most MOST_ELEMENTS values.
        tensors: Most tensors to look at, spread over roles and layers; None for all of them.
        connections: Tensors read at a time.
    """

    share: float = DEFAULT_SHARE
    tensors: int | None = None
    connections: int = 8


def inspect(plan: Plan, files: Sequence[Files], sample: Sample, *, on_read: Callable[[int], None]) -> Diagnostics:
    """Returns what the plan's models look like beside each other; nothing is merged, nested merges are taken apart.

    Tensors whose rows are put in another order are left out: what is missing there is made from whole tables.

    Args:
        plan: The merge.
        files: Of the plan's parents.
        sample: What to look at.
        on_read: Told the bytes as they arrive, from any thread.
    """
    stack = main_stack((tensor.info.name for tensor in plan.tensors), plan.config)
    merged = [leaf_merge(tensor) for tensor in plan.tensors if isinstance(tensor.expr, Merge)]
    chosen = spread([tensor for tensor in merged if _is_readable(tensor)], stack, sample.tensors)
    names = operand_names(plan, chosen)
    source = _Ranges(files, on_read)

    def look(tensor: OutputTensor) -> Cell:
        return cell_of(tensor, names[tensor.info.name], measure(_rows(tensor, source, sample.share), None), stack)

    with ThreadPoolExecutor(sample.connections, "hubmerge-inspect") as pool:
        cells = list(pool.map(look, chosen))
    return Diagnostics(
        method=plan.recipe.method,
        layer_count=plan.layer_count,
        cells=gather(cells),
        tensors=sum(1 for _ in plan.tensors),
        merged=len(merged),
        measured=len(chosen),
        elements=sum(tensor.info.elements for tensor in merged),
        sampled=sum(cell.sums.elements for cell in cells),
    )


def spread(tensors: Sequence[OutputTensor], stack: LayerStack | None, count: int | None) -> tuple[OutputTensor, ...]:
    """Returns so many of the tensors, in their order: every layer in turn, with another role each time round."""
    if count is None or count >= len(tensors):
        return tuple(tensors)
    by_layer: dict[int | None, list[int]] = {}
    for number, tensor in enumerate(tensors):
        if role_of(tensor.info.name, stack) != "norm":
            by_layer.setdefault(layer_index(tensor.info.name, stack), []).append(number)
    turns = [
        numbers[(turn + layer) % len(numbers)]
        for turn in range(max(map(len, by_layer.values()), default=0))
        for layer, numbers in enumerate(_evenly(list(by_layer.values()), count))
    ]
    chosen = list(dict.fromkeys(turns))[:count]
    return tuple(tensors[number] for number in sorted(chosen))


def sample_block(shape: Sequence[int], share: float) -> Block:
    """Returns whole rows from the middle of a tensor."""
    length = shape[-1] if shape else 1
    rows = math.prod(shape[:-1])
    wanted = min(math.ceil(share * rows), max(1, MOST_ELEMENTS // length))
    first = (rows - wanted) // 2
    return Block(first * length, (first + wanted) * length, length)


class _Ranges:
    """Reads what it is asked for, nothing else."""

    def __init__(self, files: Sequence[Files], on_read: Callable[[int], None]) -> None:
        self._files = files
        self._on_read = on_read

    def open(self, load: Load) -> _Range:
        return _Range(self._files[load.parent], load, self._on_read)


class _Range:
    """One tensor's data."""

    def __init__(self, files: Files, load: Load, on_read: Callable[[int], None]) -> None:
        self._files = files
        self._load = load
        self._on_read = on_read

    def read(self, start: int, stop: int) -> Bytes:
        data = np.empty(stop - start, np.uint8)
        self._files.read_into(self._load.file, self._load.tensor.start + start, data.data)
        self._on_read(stop - start)
        return data


def _rows(tensor: OutputTensor, source: _Ranges, share: float) -> list[Values]:
    assert isinstance(tensor.expr, Merge)
    return open_operands(tensor.expr.inputs, source)(sample_block(tensor.info.shape, share))


def _is_readable(tensor: OutputTensor) -> bool:
    assert isinstance(tensor.expr, Merge)
    is_remapped = any(isinstance(operand, RemapRows) for operand in tensor.expr.inputs)
    return len(tensor.expr.inputs) > 1 and not is_remapped and tensor.info.elements > 0


def _evenly(groups: Sequence[list[int]], count: int) -> list[list[int]]:
    """Returns at most `count` of the groups, at equal distances."""
    kept = min(count, len(groups))
    return [groups[number * len(groups) // kept] for number in range(kept)]
