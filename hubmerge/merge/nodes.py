"""The nodes of an expression that is being computed: each can be asked for any block of its value.

A node is used by one thread. What it finds out once is kept by hand: before Python 3.12 functools.cached_property holds
one lock for all instances, which makes worker threads wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from hubmerge.lazy_torch import torch
from hubmerge.merge.devices import to_host
from hubmerge.merge.dither import DITHER_INDEX, dithered
from hubmerge.merge.expr import AddLora, Dithered, Load, Random, RemapRows
from hubmerge.merge.methods.masks import mask_key
from hubmerge.merge.methods.method import Block, blocks_of
from hubmerge.merge.native.kernels import Stored
from hubmerge.merge.random_numbers import random_block
from hubmerge.merge.watch import Values
from hubmerge.weights.dtypes import FLOAT_NAMES
from hubmerge.weights.header import item_size

if TYPE_CHECKING:
    from torch import Tensor

Bytes = NDArray[np.uint8]


class TensorBytes(Protocol):
    """The data of one source tensor."""

    def read(self, start: int, stop: int) -> Bytes:
        """Returns bytes [start, stop), good until the next call; the caller must not write to them.

        They are aligned as far as `start` is.
        """


class Source(Protocol):
    """Where the bytes of source tensors come from while a plan is executed."""

    def open(self, load: Load) -> TensorBytes:
        """Returns a tensor's data, for one thread."""


def rounded(values: Tensor, dtype: str) -> Bytes:
    """Returns the bytes of values that are rounded to a safetensors dtype."""
    return to_host(values.to(torch_dtype(dtype)).contiguous().view(torch.uint8))


def torch_dtype(dtype: str) -> torch.dtype:
    """Returns torch's name of a safetensors dtype."""
    found: torch.dtype = getattr(torch, FLOAT_NAMES[dtype])
    return found


class Node(Protocol):
    """An expression that can be asked for any block of its value."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole value."""

    @property
    def dtype(self) -> str:
        """The smallest that holds its values as they are."""

    @property
    def is_double(self) -> bool:
        """Whether arithmetic on it is done in fp64."""

    def load(self, block: Block) -> Tensor:
        """Returns a block in the dtype of arithmetic, for the caller to overwrite."""

    def stored(self, block: Block) -> Stored:
        """Returns a block in its own dtype, good until the next call."""

    def rounded(self, block: Block, dtype: str) -> Bytes:
        """Returns a block in any dtype, good until the next call."""

    def operands(self, block: Block) -> list[Values]:
        """Returns what it is made from, in fp32 or fp64; see `Inputs`."""

    def kept(self, block: Block) -> Sequence[Values] | None:
        """Returns what its method keeps of each task vector; see `Inputs`."""


class Computed:
    """What every node does that has no faster way."""

    is_double: bool

    @property
    def dtype(self) -> str:
        """See `Node`."""
        return "F64" if self.is_double else "F32"

    def load(self, block: Block) -> Tensor:
        """Returns a block in the dtype of arithmetic, for the caller to overwrite."""
        raise NotImplementedError

    def stored(self, block: Block) -> Stored:
        """Returns a block in its own dtype, good until the next call."""
        return Stored(self.rounded(block, self.dtype), self.dtype)

    def rounded(self, block: Block, dtype: str) -> Bytes:
        """Returns a block in any dtype, good until the next call."""
        with torch.inference_mode():
            return rounded(self.load(block), dtype)

    def operands(self, block: Block) -> list[Values]:
        """See `Node`."""
        return [to_host(self.load(block))]

    def kept(self, _block: Block) -> Sequence[Values] | None:
        """See `Node`."""
        return None


class Held(Computed):
    """A merge within a merge, computed whole on the first call: or each pass would compute all below it again.

    Its values are held in the dtype that they are rounded to, or where they are not, in that of arithmetic.
    """

    def __init__(self, node: Node) -> None:
        self.shape = node.shape
        self.is_double = node.is_double
        self._dtype = node.dtype
        self._item_bytes = item_size(node.dtype)
        self._node: Node | None = node
        self._values: Bytes | None = None

    @property
    def dtype(self) -> str:
        """See `Node`."""
        return self._dtype

    def load(self, block: Block) -> Tensor:
        """See `Node`."""
        return _widened(self.stored(block), is_double=self.is_double)

    def stored(self, block: Block) -> Stored:
        """See `Node`."""
        start, stop = block.start * self._item_bytes, block.stop * self._item_bytes
        return Stored(self._whole()[start:stop], self._dtype)

    def _whole(self) -> Bytes:
        if self._values is None:
            assert self._node is not None
            item = self._item_bytes
            self._values = np.empty(math.prod(self.shape) * item, np.uint8)
            for block in blocks_of(self.shape):
                self._values[block.start * item : block.stop * item] = self._node.rounded(block, self._dtype)
            self._node = None  # and with it what is held below
        return self._values


class Leaf(Computed):
    """A stored tensor, decoded to the dtype of arithmetic."""

    def __init__(self, expr: Load, source: Source) -> None:
        self.shape = expr.tensor.shape
        self.is_double = expr.tensor.dtype == "F64"
        self._data = source.open(expr)
        self._dtype = expr.tensor.dtype
        self._item_bytes = item_size(self._dtype)

    @property
    def dtype(self) -> str:
        """See `Node`."""
        return self._dtype

    def stored(self, block: Block) -> Stored:
        """See `Node`."""
        return Stored(self._data.read(block.start * self._item_bytes, block.stop * self._item_bytes), self._dtype)

    def load(self, block: Block) -> Tensor:
        """See `Node`."""
        return _widened(self.stored(block), is_double=self.is_double)


def _widened(stored: Stored, *, is_double: bool) -> Tensor:
    """Returns a copy in the dtype of arithmetic."""
    values = torch.from_numpy(stored.data).view(torch_dtype(stored.dtype))
    return values.to(torch.float64 if is_double else torch.float32, copy=True)


class Drawn(Computed):
    """Random numbers."""

    is_double = False

    def __init__(self, expr: Random) -> None:
        self.shape = expr.shape
        self._expr = expr

    def load(self, block: Block) -> Tensor:
        """See `Node`."""
        return random_block(self._expr, block)


class Adapted(Computed):
    """A weight with its low-rank delta; the two small factors are held whole once they have been asked for."""

    def __init__(self, expr: AddLora, weight: Node, a: Node, b: Node) -> None:
        self.shape = weight.shape
        self.is_double = expr.is_double or weight.is_double or a.is_double or b.is_double
        self._expr = expr
        self._weight = weight
        self._stored_factors = (a, b)
        self._held_factors: tuple[Tensor, Tensor] | None = None
        self._row_length = math.prod(weight.shape[1:])

    def load(self, block: Block) -> Tensor:
        """See `Node`."""
        left, right = self._factors()
        first, last = block.start // self._row_length, -(-block.stop // self._row_length)
        delta = (left[first:last] @ right).flatten()
        # A block of a convolution may begin and end within a row of the matrix.
        skipped = block.start - first * self._row_length
        result = self._weight.load(block).to(delta.dtype)
        return result.add_(delta[skipped : skipped + block.elements], alpha=self._expr.scale)

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Returns matrices of shape `(len(W), rank)` and `(rank, the rest of W)`, read on the first call."""
        if self._held_factors is None:
            a, b = (_whole(factor).flatten(1) for factor in self._stored_factors)
            if self.is_double:
                a, b = a.double(), b.double()
            self._held_factors = (a.T, b.T) if self._expr.is_transposed else (b, a)
        return self._held_factors


def _whole(node: Node) -> Tensor:
    numel = math.prod(node.shape)
    return node.load(Block(0, numel, numel)).view(node.shape)


class RandomlyRounded(Computed):
    """A value whose rounding is random."""

    def __init__(self, expr: Dithered, value: Node) -> None:
        self.shape = value.shape
        self.is_double = value.is_double
        self._value = value
        self._key = mask_key(expr.seed, expr.name, DITHER_INDEX)

    def load(self, block: Block) -> Tensor:
        """See `Node`."""
        return self._value.load(block)

    def rounded(self, block: Block, dtype: str) -> Bytes:
        """See `Node`."""
        with torch.inference_mode():
            values = dithered(self.load(block), torch_dtype(dtype), block, key=self._key)
            return to_host(values.view(torch.uint8))


class Remapped(Computed):
    """Rows of other nodes, gathered block by block: nothing of a vocabulary's size is held."""

    def __init__(self, expr: RemapRows, nodes: Sequence[Node]) -> None:
        self.shape = expr.shape
        self.is_double = any(node.is_double for node in nodes)
        self._index = expr.index
        self._nodes = nodes
        self._dtype = torch.float64 if self.is_double else torch.float32
        self._row_length = math.prod(expr.shape) // expr.index.length
        self._filled = torch.tensor(expr.index.filled_rows(), dtype=torch.int64)
        self._known_mean: Tensor | None = None

    def load(self, block: Block) -> Tensor:
        """See `Node`."""
        start, stop = block.start // self._row_length, block.stop // self._row_length
        result = self._gather(start, stop)
        filled = self._filled[(self._filled >= start) & (self._filled < stop)]
        if filled.numel():
            result[filled - start] = self._mean().to(self._dtype)
        return result.flatten()

    def _gather(self, start: int, stop: int) -> Tensor:
        """Returns the output rows [start, stop), those without picks as zeros."""
        inputs, rows, counts = self._index.picks(start, stop)
        picked = torch.empty(len(rows), self._row_length, dtype=self._dtype)
        for number, node in enumerate(self._nodes):
            chosen = inputs == number
            if chosen.any():
                picked[chosen] = self._rows_of(node, rows[chosen]).to(self._dtype)
        if bool((counts == 1).all()):
            return picked
        result = torch.zeros(stop - start, self._row_length, dtype=self._dtype)
        result.index_add_(0, torch.arange(stop - start).repeat_interleave(counts), picked)
        return result.div_(counts.clamp(min=1).unsqueeze(1))

    def _rows_of(self, node: Node, rows: Tensor) -> Tensor:
        """Returns rows of an input, one read for each run of neighbours; of vectors, everything is read at once."""
        if self._row_length == 1:
            whole = Block(0, math.prod(node.shape), node.shape[-1])
            return node.load(whole)[rows].unsqueeze(1)
        breaks = (torch.nonzero(rows.diff() != 1).flatten() + 1).tolist()
        runs = [
            (int(rows[first]), int(rows[last - 1]) + 1)
            for first, last in zip([0, *breaks], [*breaks, len(rows)], strict=True)
        ]
        length = self._row_length
        parts = [node.load(Block(start * length, stop * length, length)) for start, stop in runs]
        return torch.cat(parts).view(-1, length)

    def _mean(self) -> Tensor:
        """Returns the mean of the rows that are not filled, in fp64, summed in block order on the first call."""
        if self._known_mean is None:
            total = torch.zeros(self._row_length, dtype=torch.float64)
            for block in blocks_of((self._index.length, self._row_length)):
                rows = self._gather(block.start // self._row_length, block.stop // self._row_length)
                total += rows.sum(0, dtype=torch.float64)  # filled rows are zeros here
            self._known_mean = total / max(1, self._index.length - len(self._filled))
        return self._known_mean
