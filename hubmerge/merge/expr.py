"""The expression that makes one output tensor from source tensors, and its evaluation block by block.

Expr
├── Load    a tensor of a parent, as it is stored
├── Same    a tensor that every parent must hold identically: integers, masks, position ids
└── Merge   a method applied to expressions, which may be merges themselves

An expression is evaluated depth first and a block at a time, so a merge tree of any depth needs a few blocks of
memory and no intermediate model. What a method needs of the whole tensor (norms, thresholds) is prepared once per
Merge, in passes over the same blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.method import Block, Settings, blocks_of
from hubmerge.merge.native.kernels import DTYPE_CODES, Kernel, can_run
from hubmerge.weights.header import TensorInfo

TORCH_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
"""The dtypes that arithmetic is done on; anything else is only copied."""


@dataclass(frozen=True)
class Load:
    """A tensor of parent number `parent` (its place in `Plan.parents`), stored in `file` at `tensor`'s bytes."""

    parent: int
    file: str
    tensor: TensorInfo


@dataclass(frozen=True)
class Same:
    """A tensor without arithmetic; the parents' bytes must be equal."""

    inputs: tuple[Load, ...]


@dataclass(frozen=True)
class Merge:
    """A method applied to inputs of one shape.

    Attributes:
        name: The tensor's name in the recipe that this merge belongs to; keys its random masks.
        inputs: The operands, the base first if `has_base`.
        seed: Seed of the recipe that this merge belongs to.
        dtype: safetensors code that the result is rounded to before anything else uses it; None to hand it on
            unrounded.
    """

    method: str
    name: str
    inputs: tuple[Expr, ...]
    has_base: bool
    settings: Settings
    seed: int
    dtype: str | None = None


Expr = Load | Same | Merge


def loads(expr: Expr) -> tuple[Load, ...]:
    """Returns the source tensors of an expression, depth first and without repetition."""
    if isinstance(expr, Load):
        return (expr,)
    return tuple(dict.fromkeys(load for operand in expr.inputs for load in loads(operand)))


class Source(Protocol):
    """Where the bytes of source tensors come from while a plan is executed."""

    def read(self, load: Load, start: int, stop: int) -> Tensor:
        """Returns bytes [start, stop) of the tensor's data as uint8; the caller must not write to them."""


def evaluate(expr: Expr, *, dtype: str, source: Source) -> Iterator[tuple[Block, Tensor]]:
    """Yields an output tensor block by block, in order, rounded once to `dtype`."""
    if isinstance(expr, Same):
        raise AssertionError("tensors without arithmetic are copied, not evaluated")
    if isinstance(expr, Merge) and expr.dtype == dtype:
        expr = replace(expr, dtype=None)  # the rounding below is this one
    node = _node(expr, source)
    for block in blocks_of(node.shape):
        yield block, node.rounded(block, TORCH_DTYPES[dtype])


class _Node(Protocol):
    """An expression that can be asked for any block of its value."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def is_double(self) -> bool: ...

    def load(self, block: Block) -> Tensor: ...

    def rounded(self, block: Block, dtype: torch.dtype) -> Tensor: ...


def _node(expr: Expr, source: Source) -> _Node:
    if isinstance(expr, Merge):
        return _Merged(expr, [_node(operand, source) for operand in expr.inputs])
    assert isinstance(expr, Load), "arithmetic on a tensor that is only copied"
    return _Leaf(expr, source)


class _Leaf:
    """A stored tensor, decoded to the dtype of arithmetic."""

    def __init__(self, expr: Load, source: Source) -> None:
        self.shape = expr.tensor.shape
        self.is_double = expr.tensor.dtype == "F64"
        self._expr = expr
        self._source = source
        self.dtype = TORCH_DTYPES[expr.tensor.dtype]

    def stored(self, block: Block) -> Tensor:
        """Returns a block as it is stored; the caller must not write to it."""
        size = self.dtype.itemsize
        raw = self._source.read(self._expr, block.start * size, block.stop * size)
        aligned = raw if raw.storage_offset() % size == 0 else raw.clone()
        return aligned.view(self.dtype)

    def load(self, block: Block) -> Tensor:
        return self.stored(block).to(torch.float64 if self.is_double else torch.float32, copy=True)

    def rounded(self, block: Block, dtype: torch.dtype) -> Tensor:
        return self.load(block).to(dtype)


class _Merged:
    """A merge: its operands' blocks combined, with what the method prepared on the first use."""

    def __init__(self, expr: Merge, operands: Sequence[_Node]) -> None:
        self.shape = operands[0].shape
        self.is_double = any(operand.is_double for operand in operands)
        self._expr = expr
        self._method = get_method(expr.method)
        self._operands = _Operands(expr, operands)

    def load(self, block: Block) -> Tensor:
        result = self._method.combine(self._operands.load(block), self._expr.settings, self._state, block)
        if self._expr.dtype is None:
            return result
        return result.to(TORCH_DTYPES[self._expr.dtype]).to(result.dtype)

    def rounded(self, block: Block, dtype: torch.dtype) -> Tensor:
        is_last_rounding = self._expr.dtype is None and dtype in DTYPE_CODES
        stored = self._operands.stored(block) if self._kernel and is_last_rounding else None
        if self._kernel is None or stored is None:
            return self.load(block).to(dtype)
        result = torch.empty(block.elements, dtype=dtype)
        self._kernel(stored, result, first=block.start)
        return result

    @cached_property
    def _state(self) -> Any:
        return self._method.prepare(self._operands, self._expr.settings) if self._method.prepare else None

    @cached_property
    def _kernel(self) -> Kernel | None:
        return self._method.compiled(self._expr.settings, self._state) if self._method.compiled else None


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
        self._leaves = [node for node in nodes if isinstance(node, _Leaf)]
        self._have_kernels = len(self._leaves) == len(nodes) and can_run([leaf.dtype for leaf in self._leaves])

    def stored(self, block: Block) -> list[Tensor] | None:
        return [leaf.stored(block) for leaf in self._leaves] if self._have_kernels else None

    def load(self, block: Block) -> list[Tensor]:
        tensors = [node.load(block) for node in self._nodes]
        return [tensor.double() for tensor in tensors] if self._is_double else tensors
