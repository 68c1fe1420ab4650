"""Cards: CUDA devices on which blocks are computed in place of the host's cores.

What a method does is the same there, in larger blocks: elements are computed in the same order of operations, sums over
tensors in fp64, and random numbers are made on the card from the same integers. What may differ is the rounding of an
operation, so results agree to within a few units of the last place of fp32, not to the bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hubmerge.errors import LimitError
from hubmerge.lazy_torch import torch
from hubmerge.merge.methods.method import Block, blocks_of

if TYPE_CHECKING:
    from torch import Tensor

Bytes = NDArray[np.uint8]

HOST = "cpu"
CUDA = "cuda"

BLOCK_ELEMENTS = 1 << 22
"""Elements of a block on a card: some milliseconds on the bus, and less than 2²⁴, up to which fp32 counts exactly."""

SEATS = 4
"""Tensors in work on a card at a time: while one is computed, others are on their way there and back."""

FREE_SHARE = 8
"""A tensor is kept on a card if it takes at most one part in so many of what is free there: seats take turns asking."""


class Card(Protocol):
    """Where blocks are computed. Only its methods copy; whatever else happens there is torch's."""

    @property
    def device(self) -> torch.device:
        """What torch calls it."""

    @property
    def block_elements(self) -> int:
        """Most elements of a block, unless one block of the host is larger."""

    def send(self, data: Bytes) -> Tensor:
        """Returns a copy on the card, uint8; the data may be overwritten as soon as this returns."""

    def has_room(self, size_bytes: int) -> bool:
        """Returns whether so much may stay there while a tensor is in work."""

    def seat(self) -> Callable[[], AbstractContextManager[object]]:
        """Returns what opens the context in which one tensor at a time is computed."""


@dataclass(frozen=True)
class CudaCard:
    """A CUDA device.

    Attributes:
        index: Its number among those that are visible.
    """

    index: int
    block_elements: int = BLOCK_ELEMENTS

    @property
    def device(self) -> torch.device:
        """See `Card`."""
        return torch.device(CUDA, self.index)

    def send(self, data: Bytes) -> Tensor:
        """See `Card`; pinned memory is used again only after it was copied, which torch's allocator sees to."""
        pinned = torch.empty(data.size, dtype=torch.uint8, pin_memory=True)
        np.copyto(pinned.numpy(), data)
        return pinned.to(self.device, non_blocking=True)

    def has_room(self, size_bytes: int) -> bool:
        """See `Card`; what torch has reserved and does not use is free."""
        reserved = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        free, _ = torch.cuda.mem_get_info(self.device)
        return size_bytes * FREE_SHARE <= free + reserved

    def seat(self) -> Callable[[], AbstractContextManager[object]]:
        """See `Card`; a seat has a stream of its own, so that copies of one overlap with the arithmetic of another."""
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        return lambda: torch.cuda.stream(stream)


class Seats:
    """The places at which tensors are computed, those of all cards taken in turn."""

    def __init__(self, cards: Sequence[Card]) -> None:
        self._cards = cards
        self._free: SimpleQueue[tuple[Card, Callable[[], AbstractContextManager[object]]]] = SimpleQueue()
        for _ in range(SEATS):
            for card in cards:
                self._free.put((card, card.seat()))

    def workers(self, threads: int) -> int:
        """Returns how many threads can work.

        No more than there are seats: one that waits for a seat would keep bytes that those who sit are waiting for.
        """
        return min(threads, SEATS * len(self._cards)) if self._cards else threads

    @contextmanager
    def one(self) -> Iterator[Card | None]:
        """Gives a card for one tensor; None where there are none."""
        if not self._cards:
            yield None
            return
        card, context = self._free.get()
        try:
            with context():
                yield card
        finally:
            self._free.put((card, context))


def find_cards(name: str) -> tuple[Card, ...]:
    """Returns the cards that are meant by `cpu` (none), `cuda` (all that are visible) or `cuda:N`.

    Raises:
        LimitError: There is no such device.
    """
    if name == HOST:
        return ()
    if not re.fullmatch(r"cuda(:\d{1,3})?", name):
        raise LimitError(f"unknown device {name}", hint="Write cpu, cuda for every visible CUDA device, or cuda:0.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(CudaCard(index) for index in chosen(name, count))


def chosen(name: str, count: int) -> Sequence[int]:
    """Returns the numbers of the devices that `cuda` or `cuda:N` means where there are so many.

    Raises:
        LimitError: There is none, or not that one.
    """
    if count == 0:
        raise LimitError(
            "no CUDA device can be used here: there is none, or torch was installed without CUDA",
            hint="Leave out --device to merge on the processor, which gives the same model.",
        )
    _, has_number, number = name.partition(":")
    if not has_number:
        return range(count)
    if int(number) >= count:
        there = ", ".join(f"{CUDA}:{index}" for index in range(count))
        raise LimitError(f"there is no {name} here, but {there}", hint="Write --device cuda for all of them.")
    return (int(number),)


def device_class(name: str) -> str:
    """Returns `cpu` or `cuda`: which of several cards computes a tensor is not foreseen, and need not be."""
    return name.partition(":")[0]


def device_arguments(name: str) -> tuple[str, ...]:
    """Returns the words of a command line that ask for such a device; none for the processor."""
    return () if name == HOST else ("--device", device_class(name))


def card_blocks(shape: Sequence[int], block_elements: int) -> Iterator[tuple[Block, Sequence[Block]]]:
    """Yields the blocks of a tensor on a card, in order, each with those of the host that it consists of."""
    blocks = blocks_of(shape)
    count = max(1, block_elements // blocks[0].elements) if blocks else 1
    for start in range(0, len(blocks), count):
        parts = blocks[start : start + count]
        yield Block(parts[0].start, parts[-1].stop, parts[0].row_length), parts


def to_host(values: Tensor) -> NDArray[Any]:
    """Returns a tensor's values in memory of the host: its own if it lies there."""
    if values.device.type == HOST:
        return values.numpy()
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    result: NDArray[Any] = pinned.copy_(values).numpy()
    return result
