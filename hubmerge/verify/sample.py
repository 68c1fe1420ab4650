"""Which weights are computed again: tensors of every kind from many layers, or blocks of them, within a budget."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from hubmerge.errors import HubmergeError
from hubmerge.merge.expr import Gate
from hubmerge.merge.layers import main_stack, part_in_layer
from hubmerge.merge.methods.method import Block, blocks_of
from hubmerge.merge.plan import OutputTensor, Plan
from hubmerge.verify.reach import block_bytes, whole_bytes
from hubmerge.weights.header import item_size
from hubmerge.weights.shard_index import abbreviated

SMALLEST_BUDGET_BYTES = 4_000_000
"""Read of any parents that have so much: small models are looked at well, and it takes a second."""

LARGEST_SHARE = 8
"""A piece takes at most this part of the budget, so that a sample spans several layers."""


@dataclass(frozen=True)
class Sampling:
    """What to look at.

    Attributes:
        fraction: Share of the bytes that the merge read of its parents.
        seed: Chooses the sample.
        least_bytes: Budget of a sample whose fraction would be smaller.
        is_full: Look at everything.
        tensors: Look at these, whole, and at nothing else.
    """

    fraction: float = 0.005
    seed: int = 0
    least_bytes: int = SMALLEST_BUDGET_BYTES
    is_full: bool = False
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A tensor, or one block of it.

    Attributes:
        block: None for the whole tensor.
        parent_bytes: What has to be read of the parents for it.
    """

    tensor: OutputTensor
    block: Block | None
    parent_bytes: int

    @property
    def result_bytes(self) -> int:
        """What has to be read of the result."""
        info = self.tensor.info
        return info.size_bytes if self.block is None else self.block.elements * item_size(info.dtype)


@dataclass(frozen=True)
class Sample:
    """What is looked at.

    Attributes:
        pieces: In the order of the files.
        unreached: Kinds of tensors of which nothing fits into the budget.
    """

    pieces: tuple[Piece, ...]
    unreached: tuple[str, ...] = ()


def choose(plan: Plan, sampling: Sampling) -> Sample:
    """Returns what to look at; equal plans and samplings give equal samples.

    Raises:
        HubmergeError: A tensor that was asked for is not one of the merge.
    """
    tensors = list(plan.tensors)
    if sampling.tensors:
        tensors = _named(tensors, sampling.tensors)
    if sampling.tensors or sampling.is_full:
        return Sample(tuple(_whole(tensor) for tensor in tensors))
    budget = max(round(sampling.fraction * plan.read_bytes), sampling.least_bytes)
    return _draw(_by_kind(plan), budget, random.Random(sampling.seed))


def _named(tensors: Sequence[OutputTensor], names: Sequence[str]) -> list[OutputTensor]:
    known = {tensor.info.name: tensor for tensor in tensors}
    if unknown := [name for name in names if name not in known]:
        raise HubmergeError(
            f"the merge has no tensor {abbreviated(unknown)}", hint=f"It has {abbreviated(list(known))}."
        )
    return [known[name] for name in dict.fromkeys(names)]


def _whole(tensor: OutputTensor) -> Piece:
    return Piece(tensor, None, whole_bytes(tensor))


def _by_kind(plan: Plan) -> dict[str, list[OutputTensor]]:
    """Returns the tensors of each kind: what follows the layer's number in their names.

    Routers that prompts decide are in no sample, as the base has to be run for them.
    """
    tensors = list(plan.tensors)
    stack = main_stack([tensor.info.name for tensor in tensors], plan.config)
    kinds: dict[str, list[OutputTensor]] = {}
    for tensor in tensors:
        kind = kinds.setdefault(part_in_layer(tensor.info.name, stack), [])
        if not isinstance(tensor.expr, Gate):
            kind.append(tensor)
    return kinds


def _draw(kinds: dict[str, list[OutputTensor]], budget: int, chance: random.Random) -> Sample:
    """Returns a sample drawn in turns, one piece of each kind a turn, until nothing more fits.

    Kinds whose pieces are too large for that get what is left, the smallest first.
    """
    queues = {kind: _pieces(tensors, chance) for kind, tensors in kinds.items()}
    chosen: list[Piece] = []
    large: dict[str, Piece] = {}
    left = budget
    while queues:
        for kind in list(queues):
            piece = next(queues[kind], None)
            if piece is not None and piece.parent_bytes <= min(budget // LARGEST_SHARE, left):
                chosen.append(piece)
                left -= piece.parent_bytes
                continue
            del queues[kind]
            if piece is not None and piece.parent_bytes > budget // LARGEST_SHARE:
                large[kind] = piece
    for kind, piece in sorted(large.items(), key=lambda entry: entry[1].parent_bytes):
        if piece.parent_bytes > left:
            break
        chosen.append(large.pop(kind))
        left -= piece.parent_bytes
    reached = {id(piece.tensor) for piece in chosen}
    unreached = (kind for kind, tensors in kinds.items() if not any(id(each) in reached for each in tensors))
    return Sample(tuple(sorted(chosen, key=_place)), tuple(unreached))


def _place(piece: Piece) -> tuple[str, int]:
    return piece.tensor.info.name, -1 if piece.block is None else piece.block.start


def _pieces(tensors: Sequence[OutputTensor], chance: random.Random) -> Iterator[Piece]:
    """Yields a piece of each tensor in random order, then further blocks of those that have some."""
    order = chance.sample(range(len(tensors)), len(tensors))
    own = random.Random(chance.getrandbits(64))  # so that no kind's draws depend on how far another's went
    rest: list[Iterator[Piece]] = []
    for index in order:
        pieces = _pieces_of(tensors[index], own)
        yield next(pieces)
        rest.append(pieces)
    yield from (piece for turn in zip_longest(*rest) for piece in turn if piece is not None)


def _pieces_of(tensor: OutputTensor, chance: random.Random) -> Iterator[Piece]:
    """Yields the blocks of a tensor in random order, or the whole tensor where a block needs all of its sources."""
    blocks = blocks_of(tensor.info.shape)
    order = chance.sample(blocks, len(blocks))
    if len(order) < 2 or (needed := block_bytes(tensor, order[0])) is None:
        yield _whole(tensor)
        return
    yield Piece(tensor, order[0], needed)
    for block in order[1:]:
        needed = block_bytes(tensor, block)
        if needed is not None:  # rows that are means of a whole table need all of it
            yield Piece(tensor, block, needed)
