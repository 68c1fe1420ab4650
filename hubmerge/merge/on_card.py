"""An expression computed block by block on a card (see `devices`), as `evaluate` does it on the host.

Source tensors are sent as they are stored and widened there. What a method passes over more than once stays on the card
while its tensor is in work, if there is room; if not, its blocks are sent again for every pass. Rows that are gathered
from several vocabularies, and random tensors, are made on the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hubmerge.lazy_torch import torch
from hubmerge.merge.devices import Card, card_blocks, to_host
from hubmerge.merge.evaluate import UNWATCHED, open_node
from hubmerge.merge.expr import AddLora, Dithered, Expr, Merge
from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.method import Block
from hubmerge.merge.native.kernels import Stored
from hubmerge.merge.nodes import Adapted, Bytes, Computed, Held, Node, RandomlyRounded, Source, torch_dtype
from hubmerge.merge.watch import Values, Watch
from hubmerge.weights.header import item_size

if TYPE_CHECKING:
    from torch import Tensor


def is_for_card(expr: Expr) -> bool:
    """Returns whether an expression has arithmetic that a card can do."""
    if isinstance(expr, Dithered):
        return is_for_card(expr.value)
    return isinstance(expr, Merge | AddLora)


def evaluate_on_card(
    expr: Expr, *, dtype: str, source: Source, card: Card, watch: Watch = UNWATCHED
) -> Iterator[tuple[Block, Bytes]]:
    """Yields an output tensor's bytes as `evaluate` does, in the same blocks."""
    node, item_bytes = _node(expr, source, card), item_size(dtype)
    for whole, parts in card_blocks(node.shape, card.block_elements):
        data = node.rounded(whole, dtype)
        for block in parts:
            part = data[(block.start - whole.start) * item_bytes : (block.stop - whole.start) * item_bytes]
            watch.computed(block, part, node)
            yield block, part


def _node(expr: Expr, source: Source, card: Card) -> Node:
    if isinstance(expr, Merge):
        inner = _kept if get_method(expr.method).prepare else _node
        return _Merged(expr, [inner(operand, source, card) for operand in expr.inputs], card)
    if isinstance(expr, AddLora):
        return Adapted(expr, *(_node(operand, source, card) for operand in expr.inputs))
    if isinstance(expr, Dithered):
        return RandomlyRounded(expr, _node(expr.value, source, card))
    return _Sent(open_node(expr, source), card)


def _kept(expr: Expr, source: Source, card: Card) -> Node:
    """Returns a node that may be passed over more than once."""
    node = _node(expr, source, card)
    return _Kept(node, card, otherwise=_Sent(Held(node), card) if _has_merge(expr) else node)


def _has_merge(expr: Expr) -> bool:
    return isinstance(expr, Merge) or (isinstance(expr, AddLora) and _has_merge(expr.weight))


class _Sent(Computed):
    """A node of the host, whose blocks are sent as they are stored."""

    def __init__(self, node: Node, card: Card) -> None:
        self.shape = node.shape
        self.is_double = node.is_double
        self._node = node
        self._card = card

    @property
    def dtype(self) -> str:
        return self._node.dtype

    def load(self, block: Block) -> Tensor:
        stored = self._node.stored(block)
        return _widened(self._card.send(stored.data).view(torch_dtype(stored.dtype)), is_double=self.is_double)


class _Kept(Computed):
    """A node whose whole value stays on the card from the first use on, in the dtype that it is rounded to.

    Args:
        node: On the card.
        card: Where.
        otherwise: Is asked in its place if there is no room.
    """

    def __init__(self, node: Node, card: Card, *, otherwise: Node) -> None:
        self.shape = node.shape
        self.is_double = node.is_double
        self._dtype = node.dtype
        self._card = card
        self._node: Node | None = node
        self._otherwise: Node | None = otherwise
        self._values: Tensor | None = None

    @property
    def dtype(self) -> str:
        return self._dtype

    def load(self, block: Block) -> Tensor:
        if self._node is not None:
            self._settle(self._node)
        if self._values is None:
            assert self._otherwise is not None
            return self._otherwise.load(block)
        return _widened(self._values[block.start : block.stop], is_double=self.is_double)

    def _settle(self, node: Node) -> None:
        elements = math.prod(self.shape)
        if self._card.has_room(elements * item_size(self._dtype)):
            self._values = torch.empty(elements, dtype=torch_dtype(self._dtype), device=self._card.device)
            for block, _ in card_blocks(self.shape, self._card.block_elements):
                self._values[block.start : block.stop] = node.load(block)
            self._otherwise = None
        self._node = None  # and with it what is kept below


def _widened(values: Tensor, *, is_double: bool) -> Tensor:
    """Returns a copy in the dtype of arithmetic."""
    return values.to(torch.float64 if is_double else torch.float32, copy=True)


class _Merged(Computed):
    """A merge: its operands' blocks combined, with what the method prepared on the first use."""

    def __init__(self, expr: Merge, nodes: Sequence[Node], card: Card) -> None:
        self.shape = nodes[0].shape
        self.is_double = any(node.is_double for node in nodes)
        self._expr = expr
        self._method = get_method(expr.method)
        self._operands = _Operands(expr, nodes, card)
        self._state: Any = None
        self._is_prepared = False

    @property
    def dtype(self) -> str:
        return self._expr.dtype or super().dtype

    def load(self, block: Block) -> Tensor:
        state = self._prepare()
        result = self._method.combine(self._operands.load(block), self._expr.settings, state, block)
        return result if self._expr.dtype is None else result.to(torch_dtype(self._expr.dtype)).to(result.dtype)

    def operands(self, block: Block) -> list[Values]:
        return [to_host(each) for each in self._operands.load(block)]

    def kept(self, block: Block) -> Sequence[Values] | None:
        state = self._prepare()
        return None if self._method.thinned is None else self._method.thinned(self._operands, state, block)

    def _prepare(self) -> Any:
        """Returns the method's state for this tensor, made on the first call."""
        if not self._is_prepared and self._method.prepare:
            self._state = self._method.prepare(self._operands, self._expr.settings)
        self._is_prepared = True
        return self._state


class _Operands:
    """The operands of one merge, as methods see them: on the card, in its blocks."""

    def __init__(self, expr: Merge, nodes: Sequence[Node], card: Card) -> None:
        self.name = expr.name
        self.shape = nodes[0].shape
        self.seed = expr.seed
        self.has_base = expr.has_base
        self.blocks = [block for block, _ in card_blocks(self.shape, card.block_elements)]
        self._nodes = nodes
        self._is_double = any(node.is_double for node in nodes)

    def stored(self, _block: Block) -> list[Stored] | None:
        """Returns None: compiled kernels are for the host."""
        return None

    def load(self, block: Block) -> list[Tensor]:
        tensors = [node.load(block) for node in self._nodes]
        return [tensor.double() for tensor in tensors] if self._is_double else tensors
