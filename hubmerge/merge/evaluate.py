"""An expression computed block by block.

It is evaluated depth first, without an intermediate model. What a method needs of the whole tensor (norms, thresholds)
is prepared once for each Merge, in passes over the same blocks. A merge within a merge that is passed over more than
once is held whole for that time, in the dtype that it is rounded to; so a tree needs, for one tensor of one branch, the
results that the branch is still waiting to merge.

A node is used by one thread. What it finds out once is kept by hand: before Python 3.12 functools.cached_property holds
one lock for all instances, which makes worker threads wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hubmerge.lazy_torch import torch
from hubmerge.merge.dither import DITHER_INDEX, dithered
from hubmerge.merge.expr import AddLora, Dithered, Expr, Load, Merge, Random, RemapRows, Same, loads
from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.masks import mask_key
from hubmerge.merge.methods.method import Block, blocks_of
from hubmerge.merge.native.kernels import DTYPE_CODES, Kernel, Stored, can_run
from hubmerge.merge.random_numbers import random_block
from hubmerge.merge.watch import Unwatched, Values, Watch
from hubmerge.weights.dtypes import FLOAT_NAMES
from hubmerge.weights.header import item_size

if TYPE_CHECKING:
    from torch import Tensor

Bytes = NDArray[np.uint8]
UNWATCHED = Unwatched()


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


def evaluate(
    expr: Expr, *, dtype: str, source: Source, watch: Watch = UNWATCHED, blocks: Sequence[Block] | None = None
) -> Iterator[tuple[Block, Bytes]]:
    """Yields an output tensor's bytes block by block, rounded once to `dtype`; each is good until the next.

    Args:
        expr: What makes it.
        dtype: safetensors code.
        source: Of the tensors that it is made from.
        watch: Told of every block.
        blocks: Some of `blocks_of` its shape; None for all.
    """
    if isinstance(expr, Same):
        raise AssertionError("tensors without arithmetic are copied, not evaluated")
    node = _node(expr, source)
    for block in blocks_of(node.shape) if blocks is None else blocks:
        data = node.rounded(block, dtype)
        watch.computed(block, data, node)
        yield block, data


def open_operands(exprs: Sequence[Expr], source: Source) -> Callable[[Block], list[Values]]:
    """Returns what gives any whole rows of these expressions, which are of one shape."""
    nodes = [_node(expr, source) for expr in exprs]
    return lambda block: [node.load(block).numpy() for node in nodes]


def needs_torch(expr: Expr) -> bool:
    """Returns whether an expression's arithmetic is surely beyond the compiled kernels."""
    if not isinstance(expr, Merge):
        return not isinstance(expr, Load | Same)
    has_kernel = get_method(expr.method).compiled is not None
    return not (has_kernel and can_run([load.tensor.dtype for load in loads(expr)])) or any(
        map(needs_torch, expr.inputs)
    )


def rounded(values: Tensor, dtype: str) -> Bytes:
    """Returns the bytes of values that are rounded to a safetensors dtype."""
    return values.to(_torch_dtype(dtype)).contiguous().view(torch.uint8).numpy()


def _torch_dtype(dtype: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, FLOAT_NAMES[dtype])
    return found


class _Node(Protocol):
    """An expression that can be asked for any block of its value."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str:
        """The smallest that holds its values as they are."""

    @property
    def is_double(self) -> bool: ...

    def load(self, block: Block) -> Tensor: ...

    def stored(self, block: Block) -> Stored: ...

    def rounded(self, block: Block, dtype: str) -> Bytes: ...

    def operands(self, block: Block) -> list[Values]: ...

    def kept(self, block: Block) -> Sequence[Values] | None: ...


class _Computed:
    """What every node does that has no faster way."""

    is_double: bool

    @property
    def dtype(self) -> str:
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
        return [self.load(block).numpy()]

    def kept(self, _block: Block) -> Sequence[Values] | None:
        return None


def _node(expr: Expr, source: Source) -> _Node:
    if isinstance(expr, Merge):
        inner = _held if get_method(expr.method).prepare else _node
        return _Merged(expr, [inner(operand, source) for operand in expr.inputs])
    if isinstance(expr, AddLora):
        return _Adapted(expr, _node(expr.weight, source), _Leaf(expr.a, source), _Leaf(expr.b, source))
    if isinstance(expr, Dithered):
        return _Dithered(expr, _node(expr.value, source))
    if isinstance(expr, RemapRows):
        return _Remapped(expr, [_held(operand, source) for operand in expr.inputs])
    if isinstance(expr, Random):
        return _Drawn(expr)
    assert isinstance(expr, Load), "arithmetic on a tensor that is only copied"
    return _Leaf(expr, source)


def _held(expr: Expr, source: Source) -> _Node:
    """Returns a node that may be passed over more than once."""
    if not _has_merge(expr):
        return _node(expr, source)
    return _Held(_node(expr, source))


def _has_merge(expr: Expr) -> bool:
    return isinstance(expr, Merge) or (isinstance(expr, RemapRows | AddLora) and any(map(_has_merge, expr.inputs)))


class _Held(_Computed):
    """A merge within a merge, computed whole on the first call: or each pass would compute all below it again.

    Its values are held in the dtype that they are rounded to, or where they are not, in that of arithmetic.
    """

    def __init__(self, node: _Node) -> None:
        self.shape = node.shape
        self.is_double = node.is_double
        self._dtype = node.dtype
        self._item_bytes = item_size(node.dtype)
        self._node: _Node | None = node
        self._values: Bytes | None = None

    @property
    def dtype(self) -> str:
        return self._dtype

    def load(self, block: Block) -> Tensor:
        return _widened(self.stored(block), is_double=self.is_double)

    def stored(self, block: Block) -> Stored:
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


class _Leaf(_Computed):
    """A stored tensor, decoded to the dtype of arithmetic."""

    def __init__(self, expr: Load, source: Source) -> None:
        self.shape = expr.tensor.shape
        self.is_double = expr.tensor.dtype == "F64"
        self._data = source.open(expr)
        self._dtype = expr.tensor.dtype
        self._item_bytes = item_size(self._dtype)

    @property
    def dtype(self) -> str:
        return self._dtype

    def stored(self, block: Block) -> Stored:
        return Stored(self._data.read(block.start * self._item_bytes, block.stop * self._item_bytes), self._dtype)

    def load(self, block: Block) -> Tensor:
        return _widened(self.stored(block), is_double=self.is_double)


def _widened(stored: Stored, *, is_double: bool) -> Tensor:
    """Returns a copy in the dtype of arithmetic."""
    values = torch.from_numpy(stored.data).view(_torch_dtype(stored.dtype))
    return values.to(torch.float64 if is_double else torch.float32, copy=True)


class _Drawn(_Computed):
    """Random numbers."""

    is_double = False

    def __init__(self, expr: Random) -> None:
        self.shape = expr.shape
        self._expr = expr

    def load(self, block: Block) -> Tensor:
        return random_block(self._expr, block)


class _Adapted(_Computed):
    """A weight with its low-rank delta; the two small factors are held whole once they have been asked for."""

    def __init__(self, expr: AddLora, weight: _Node, a: _Leaf, b: _Leaf) -> None:
        self.shape = weight.shape
        self.is_double = weight.is_double or a.is_double or b.is_double
        self._expr = expr
        self._weight = weight
        self._stored_factors = (a, b)
        self._held_factors: tuple[Tensor, Tensor] | None = None
        self._row_length = math.prod(weight.shape[1:])

    def load(self, block: Block) -> Tensor:
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
            a, b = (_whole(leaf).flatten(1) for leaf in self._stored_factors)
            if self.is_double:
                a, b = a.double(), b.double()
            self._held_factors = (a.T, b.T) if self._expr.is_transposed else (b, a)
        return self._held_factors


def _whole(leaf: _Leaf) -> Tensor:
    numel = math.prod(leaf.shape)
    return leaf.load(Block(0, numel, numel)).view(leaf.shape)


class _Dithered(_Computed):
    """A value whose rounding is random."""

    def __init__(self, expr: Dithered, value: _Node) -> None:
        self.shape = value.shape
        self.is_double = value.is_double
        self._value = value
        self._key = mask_key(expr.seed, expr.name, DITHER_INDEX)

    def load(self, block: Block) -> Tensor:
        return self._value.load(block)

    def rounded(self, block: Block, dtype: str) -> Bytes:
        with torch.inference_mode():
            values = dithered(self.load(block), _torch_dtype(dtype), block, key=self._key)
            return values.view(torch.uint8).numpy()


class _Remapped(_Computed):
    """Rows of other nodes, gathered block by block: nothing of a vocabulary's size is held."""

    def __init__(self, expr: RemapRows, nodes: Sequence[_Node]) -> None:
        self.shape = expr.shape
        self.is_double = any(node.is_double for node in nodes)
        self._index = expr.index
        self._nodes = nodes
        self._dtype = torch.float64 if self.is_double else torch.float32
        self._row_length = math.prod(expr.shape) // expr.index.length
        self._filled = torch.tensor(expr.index.filled_rows(), dtype=torch.int64)
        self._known_mean: Tensor | None = None

    def load(self, block: Block) -> Tensor:
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

    def _rows_of(self, node: _Node, rows: Tensor) -> Tensor:
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


class _Merged(_Computed):
    """A merge: its operands' blocks combined, with what the method prepared on the first use."""

    def __init__(self, expr: Merge, operands: Sequence[_Node]) -> None:
        self.shape = operands[0].shape
        self.is_double = any(operand.is_double for operand in operands)
        self._expr = expr
        self._method = get_method(expr.method)
        self._operands = _Operands(expr, operands)
        self._prepared: tuple[Any, Kernel | None] | None = None
        self._room: Bytes = np.empty(0, np.uint8)

    def load(self, block: Block) -> Tensor:
        state, _ = self._prepare()
        result = self._method.combine(self._operands.load(block), self._expr.settings, state, block)
        if self._expr.dtype is None:
            return result
        return result.to(_torch_dtype(self._expr.dtype)).to(result.dtype)

    @property
    def dtype(self) -> str:
        return self._expr.dtype or super().dtype

    def rounded(self, block: Block, dtype: str) -> Bytes:
        _, kernel = self._prepare()
        is_only_rounding = self._expr.dtype in (None, dtype) and dtype in DTYPE_CODES
        stored = self._operands.stored(block) if kernel and is_only_rounding else None
        if kernel is None or stored is None:
            return super().rounded(block, dtype)
        result = self._room_of(block.elements * item_size(dtype))
        kernel(stored, Stored(result, dtype), first=block.start)
        return result

    def operands(self, block: Block) -> list[Values]:
        stored = self._operands.stored(block)
        return [_decoded(each) for each in stored] if stored else [each.numpy() for each in self._operands.load(block)]

    def kept(self, block: Block) -> Sequence[Values] | None:
        state, _ = self._prepare()
        if self._method.thinned is None:
            return None
        return self._method.thinned(self._operands, state, block)

    def _room_of(self, size_bytes: int) -> Bytes:
        """Returns memory that is used again for every block: new memory would cost as much as the arithmetic."""
        if self._room.size < size_bytes:
            self._room = np.empty(size_bytes, np.uint8)
        return self._room[:size_bytes]

    def _prepare(self) -> tuple[Any, Kernel | None]:
        """Returns the method's state for this tensor and its compiled kernel, made on the first call."""
        if self._prepared is None:
            settings = self._expr.settings
            state = self._method.prepare(self._operands, settings) if self._method.prepare else None
            self._prepared = state, self._method.compiled(settings, state) if self._method.compiled else None
        return self._prepared


class _Operands:
    """The operands of one merge, as methods see them."""

    def __init__(self, expr: Merge, nodes: Sequence[_Node]) -> None:
        self.name = expr.name
        self.shape = nodes[0].shape
        self.seed = expr.seed
        self.has_base = expr.has_base
        self.blocks = blocks_of(self.shape)
        self._nodes = nodes
        self._is_double = any(node.is_double for node in nodes)
        self._have_kernels = can_run([node.dtype for node in nodes])

    def stored(self, block: Block) -> list[Stored] | None:
        return [node.stored(block) for node in self._nodes] if self._have_kernels else None

    def load(self, block: Block) -> list[Tensor]:
        tensors = [node.load(block) for node in self._nodes]
        return [tensor.double() for tensor in tensors] if self._is_double else tensors


def _decoded(stored: Stored) -> Values:
    """Returns stored elements in fp32, in memory of their own."""
    if stored.dtype == "BF16":
        return (stored.data.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.data.view(np.float16 if stored.dtype == "F16" else np.float32).astype(np.float32)
