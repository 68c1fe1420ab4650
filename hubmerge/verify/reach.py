"""What has to be read of the parents to compute one block of a tensor, found by computing it from zeros."""

from __future__ import annotations

from collections import Counter

import numpy as np

from hubmerge.errors import MergeError
from hubmerge.merge.evaluate import evaluate
from hubmerge.merge.expr import AddLora, Expr, Load, Same, loads, walk
from hubmerge.merge.methods.method import Block
from hubmerge.merge.nodes import Bytes
from hubmerge.merge.plan import OutputTensor
from hubmerge.weights.dtypes import is_float
from hubmerge.weights.header import item_size

MOST_BLOCKS = 2
"""Blocks of one source that may be read for one block of the result; a method that looks at all of a tensor reads more
in its first pass."""


class _ReadsMoreError(Exception):
    """A source is read beyond its share."""


class _Zeros:
    """A source tensor of zeros that counts what is read of it."""

    def __init__(self, read: Counter[Load], load: Load, most_bytes: int) -> None:
        self._read = read
        self._load = load
        self._most_bytes = most_bytes

    def read(self, start: int, stop: int) -> Bytes:
        """Returns zeros."""
        self._read[self._load] += stop - start
        if self._read[self._load] > self._most_bytes:
            raise _ReadsMoreError
        return np.zeros(stop - start, np.uint8)


class _Meter:
    """Zeros for all sources; the factors of adapters are small, so they may be read whole."""

    def __init__(self, factors: frozenset[Load], block: Block) -> None:
        self.read: Counter[Load] = Counter()
        self._factors = factors
        self._block = block

    def open(self, load: Load) -> _Zeros:
        """Returns a source tensor."""
        share = MOST_BLOCKS * self._block.elements * item_size(load.tensor.dtype)
        return _Zeros(self.read, load, load.tensor.size_bytes if load in self._factors else share)


def block_bytes(tensor: OutputTensor, block: Block) -> int | None:
    """Returns the bytes of sources that one block of a tensor needs, None if it needs whole tensors."""
    expr, dtype = tensor.expr, tensor.info.dtype
    if isinstance(expr, Same) or not is_float(dtype):
        return None
    if isinstance(expr, Load) and expr.tensor.dtype == dtype:
        return block.elements * item_size(dtype)
    meter = _Meter(frozenset(_factors(expr)), block)
    try:
        for _ in evaluate(expr, dtype=dtype, source=meter, blocks=(block,)):
            pass
    except (_ReadsMoreError, MergeError):
        return None
    return meter.read.total()


def whole_bytes(tensor: OutputTensor) -> int:
    """Returns the bytes of all sources of a tensor."""
    return sum(load.tensor.size_bytes for load in loads(tensor.expr))


def _factors(expr: Expr) -> list[Load]:
    return [factor for part in walk(expr) if isinstance(part, AddLora) for factor in (part.a, part.b)]
