"""An expression computed block by block.

It is evaluated depth first, without an intermediate model; compiled kernels get runs of blocks. What a method needs of
the whole tensor (norms, thresholds) is prepared once for each Merge, in passes over all of it. A merge within a merge
that is passed over more than once is computed once and held whole for that time (see `holding`), in the dtype that it
is rounded to; so a tree needs, for one tensor of one branch, the results that the branch is still waiting to merge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hubmerge.lazy_torch import torch
from hubmerge.merge.devices import to_host
from hubmerge.merge.expr import AddLora, Dithered, Expr, Load, Merge, Random, RemapRows, Same, loads, walk
from hubmerge.merge.holding import held_parts
from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.method import PASS_BLOCKS, RUN_BLOCKS, Block, blocks_of
from hubmerge.merge.native.kernels import DTYPE_CODES, Kernel, Stored, can_run
from hubmerge.merge.nodes import (
    Adapted,
    Bytes,
    Computed,
    Drawn,
    Held,
    Leaf,
    Node,
    RandomlyRounded,
    Remapped,
    Source,
    torch_dtype,
)
from hubmerge.merge.watch import Unwatched, Values, Watch
from hubmerge.weights.header import item_size

if TYPE_CHECKING:
    from torch import Tensor

UNWATCHED = Unwatched()


def evaluate(
    expr: Expr, *, dtype: str, source: Source, watch: Watch = UNWATCHED, blocks: Sequence[Block] | None = None
) -> Iterator[tuple[Block, Bytes]]:
    """Yields an output tensor's bytes block by block, rounded once to `dtype`; each is good until the next.

    Args:
        expr: What makes it.
        dtype: safetensors code.
        source: Of the tensors that it is made from.
        watch: Told of every block that is yielded.
        blocks: Some of `blocks_of` its shape; None for all, in runs where nothing needs torch.
    """
    if isinstance(expr, Same):
        raise AssertionError("tensors without arithmetic are copied, not evaluated")
    node = Nodes(expr, source).node(expr)
    if blocks is None:
        blocks = blocks_of(node.shape, at_a_time=1 if needs_torch(expr) else RUN_BLOCKS)
    for block in blocks:
        data = node.rounded(block, dtype)
        watch.computed(block, data, node)
        yield block, data


def open_operands(exprs: Sequence[Expr], source: Source) -> Callable[[Block], list[Values]]:
    """Returns what gives any whole rows of these expressions, which are of one shape."""
    nodes = [Nodes(expr, source).node(expr) for expr in exprs]
    return lambda block: [node.load(block).numpy() for node in nodes]


def needs_torch(expr: Expr) -> bool:
    """Returns whether an expression's arithmetic is surely beyond the compiled kernels."""
    return any(map(_part_needs_torch, walk(expr)))


def _part_needs_torch(expr: Expr) -> bool:
    if not isinstance(expr, Merge):
        return not isinstance(expr, Load | Same)
    has_kernel = get_method(expr.method).compiled is not None
    return expr.is_double or not (has_kernel and can_run([load.tensor.dtype for load in loads(expr)]))


class Nodes:
    """Makes the nodes of one expression; of what is held, one that all who use it share.

    Where else than on the host something is computed, a class of its own says how it is held and merged there.
    """

    def __init__(self, expr: Expr, source: Source) -> None:
        self._source = source
        self._held = held_parts(expr)
        self._shared: dict[int, Node] = {}

    def node(self, expr: Expr) -> Node:
        """Returns what gives any block of the expression's value, or of a part of it."""
        if id(expr) not in self._held:
            return self._new(expr)
        if id(expr) not in self._shared:
            self._shared[id(expr)] = self._holding(self._new(expr))
        return self._shared[id(expr)]

    def _holding(self, node: Node) -> Node:
        """Returns a node that computes another's whole value once."""
        return Held(node)

    def _merging(self, expr: Merge) -> Node:
        return Merged(expr, [self.node(operand) for operand in expr.inputs])

    def _new(self, expr: Expr) -> Node:
        if isinstance(expr, Merge):
            return self._merging(expr)
        if isinstance(expr, AddLora):
            return Adapted(expr, *(self.node(operand) for operand in expr.inputs))
        if isinstance(expr, Dithered):
            return RandomlyRounded(expr, self.node(expr.value))
        if isinstance(expr, RemapRows):
            return Remapped(expr, [self.node(operand) for operand in expr.inputs])
        if isinstance(expr, Random):
            return Drawn(expr)
        assert isinstance(expr, Load), "arithmetic on a tensor that is only copied"
        return Leaf(expr, self._source)


class Merged(Computed):
    """A merge: its operands' blocks combined, with what the method prepared on the first use.

    Args:
        expr: The merge.
        operands: The nodes of its inputs.
        blocks: Those in which a card passes over them, where compiled kernels do not run; None on the host.
    """

    def __init__(self, expr: Merge, operands: Sequence[Node], *, blocks: Sequence[Block] | None = None) -> None:
        in_fp64 = expr.is_double or any(operand.is_double for operand in operands)
        self.shape = operands[0].shape
        self.is_double = in_fp64 if expr.dtype is None else expr.dtype == "F64"
        self._expr = expr
        self._method = get_method(expr.method)
        self._operands = _Operands(expr, operands, is_double=in_fp64, blocks=blocks)
        self._prepared: tuple[Any, Kernel | None] | None = None
        self._room: Bytes = np.empty(0, np.uint8)

    def load(self, block: Block) -> Tensor:
        """See `Node`."""
        state, _ = self._prepare()
        result = self._method.combine(self._operands.load(block), self._expr.settings, state, block)
        if self._expr.dtype is None:
            return result
        return result.to(torch_dtype(self._expr.dtype)).to(torch.float64 if self.is_double else torch.float32)

    @property
    def dtype(self) -> str:
        """See `Node`."""
        return self._expr.dtype or super().dtype

    def rounded(self, block: Block, dtype: str) -> Bytes:
        """See `Node`."""
        _, kernel = self._prepare()
        is_only_rounding = self._expr.dtype in (None, dtype) and dtype in DTYPE_CODES
        stored = self._operands.stored(block) if kernel and is_only_rounding else None
        if kernel is None or stored is None:
            return super().rounded(block, dtype)
        result = self._room_of(block.elements * item_size(dtype))
        kernel(stored, Stored(result, dtype), first=block.start)
        return result

    def operands(self, block: Block) -> list[Values]:
        """See `Node`."""
        stored = self._operands.stored(block)
        return [_decoded(each) for each in stored] if stored else [to_host(each) for each in self._operands.load(block)]

    def kept(self, block: Block) -> Sequence[Values] | None:
        """See `Node`."""
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
            compiled = self._method.compiled if self._operands.have_kernels else None
            self._prepared = state, compiled(settings, state) if compiled else None
        return self._prepared


class _Operands:
    """The operands of one merge, as methods see them."""

    def __init__(self, expr: Merge, nodes: Sequence[Node], *, is_double: bool, blocks: Sequence[Block] | None) -> None:
        self.name = expr.name
        self.shape = nodes[0].shape
        self.seed = expr.seed
        self.has_base = expr.has_base
        self._nodes = nodes
        self._is_double = is_double
        self.have_kernels = blocks is None and not is_double and can_run([node.dtype for node in nodes])
        has_compiled = self.have_kernels and get_method(expr.method).compiled is not None
        self.blocks = blocks or blocks_of(self.shape, at_a_time=PASS_BLOCKS if has_compiled else 1)

    def stored(self, block: Block) -> list[Stored] | None:
        return [node.stored(block) for node in self._nodes] if self.have_kernels else None

    def load(self, block: Block) -> list[Tensor]:
        tensors = [node.load(block) for node in self._nodes]
        return [tensor.double() for tensor in tensors] if self._is_double else tensors


def _decoded(stored: Stored) -> Values:
    """Returns stored elements in fp32, in memory of their own."""
    if stored.dtype == "BF16":
        return (stored.data.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.data.view(np.float16 if stored.dtype == "F16" else np.float32).astype(np.float32)
