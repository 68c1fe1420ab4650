"""An expression computed block by block on a card (see `devices`), as `evaluate` does it on the host.

Source tensors are sent as they are stored and widened there. What a method passes over more than once, or several parts
of a tree use, stays on the card while its tensor is in work, if there is room; if not, its blocks are sent again for
every pass. Rows that are gathered from several vocabularies, and random tensors, are made on the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hubmerge.lazy_torch import torch
from hubmerge.merge.devices import Card, card_blocks
from hubmerge.merge.evaluate import UNWATCHED, Merged, Nodes
from hubmerge.merge.expr import AddLora, Dithered, Expr, Merge, RemapRows, walk
from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.method import Block
from hubmerge.merge.nodes import Bytes, Computed, Held, Node, Source, torch_dtype
from hubmerge.merge.watch import Watch
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
    node, item_bytes = _NodesOnCard(expr, source, card).node(expr), item_size(dtype)
    for whole, parts in card_blocks(node.shape, card.block_elements):
        data = node.rounded(whole, dtype)
        for block in parts:
            part = data[(block.start - whole.start) * item_bytes : (block.stop - whole.start) * item_bytes]
            watch.computed(block, part, node)
            yield block, part


class _NodesOnCard(Nodes):
    """Makes the nodes of one expression on a card, of what it has no arithmetic for on the host.

    What rows are gathered from is made on the host; if it is held there, whoever else uses it takes it from there.
    """

    def __init__(self, expr: Expr, source: Source, card: Card) -> None:
        super().__init__(expr, source)
        self._card = card
        self._host = Nodes(expr, source)
        gathered = (part for part in walk(expr) if isinstance(part, RemapRows))
        self._on_host = {id(below) for part in gathered for below in walk(part)} & self._held.keys()

    def node(self, expr: Expr) -> Node:
        if id(expr) in self._on_host or not is_for_card(expr):
            return _Sent(self._host.node(expr), self._card)
        return super().node(expr)

    def _holding(self, node: Node) -> Node:
        return _Kept(node, self._card, otherwise=_Sent(Held(node), self._card))

    def _merging(self, expr: Merge) -> Node:
        nodes = [self.node(operand) for operand in expr.inputs]
        if get_method(expr.method).prepare:
            nodes = [self._kept(node) for node in nodes]
        blocks = [block for block, _ in card_blocks(nodes[0].shape, self._card.block_elements)]
        return Merged(expr, nodes, blocks=blocks)

    def _kept(self, node: Node) -> Node:
        """Returns a node that may be passed over more than once; what is held stays on the card already."""
        return node if isinstance(node, _Kept) else _Kept(node, self._card, otherwise=node)


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
