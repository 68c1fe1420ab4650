"""A plan executed: its tensors computed by worker threads and written to their places, shard by shard.

Readers (see read_ahead) bring the sources of later tensors while workers compute earlier ones. A worker takes one
output tensor at a time, in order, and writes it block by block; so memory is the read-ahead budget, a few blocks a
worker, and what a worker holds of a tree (see holding).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from hubmerge.errors import MergeError
from hubmerge.lazy_torch import torch
from hubmerge.merge.devices import Card, Seats
from hubmerge.merge.evaluate import evaluate, needs_torch
from hubmerge.merge.expr import Expr, Gate, Load, Same
from hubmerge.merge.nodes import Bytes, rounded
from hubmerge.merge.on_card import evaluate_on_card, is_for_card
from hubmerge.merge.plan import OutputTensor, ShardPlan
from hubmerge.merge.progress import Progress, Stage
from hubmerge.merge.read_ahead import BatchSource, ReadAhead
from hubmerge.merge.watch import Unwatched, Watch
from hubmerge.merge.workers import Workers
from hubmerge.weights.files import Files
from hubmerge.weights.header import item_size
from hubmerge.weights.shards import ShardFile

if TYPE_CHECKING:
    from torch import Tensor

Watcher = Callable[[OutputTensor], Watch]
"""Gives what looks at a tensor while it is made."""

COPY_BYTES = 1 << 19
"""Bytes of a tensor that is only copied, moved at a time: they stay in a core's cache until they are hashed."""

SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python's lock while another waits for it."""

NO_GATES: Mapping[Gate, Tensor] = MappingProxyType({})


def usable_cores() -> int:
    """Returns the cores that this process may run on; of all, where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class StreamOptions:
    """What a merge may use of the machine.

    Attributes:
        threads: Workers that compute.
        read_ahead_bytes: Most bytes of remote tensors to hold in memory; a tensor's sources may exceed it on their own.
        connections: Requests to the Hub at a time; more than eight measured slower.
        cards: What computes in place of the processor.
    """

    threads: int = field(default_factory=usable_cores)
    read_ahead_bytes: int = 512 << 20
    connections: int = 8
    cards: tuple[Card, ...] = ()


class Stream:
    """Executes shards of a plan, in order, each once. Made by `open_stream`."""

    def __init__(
        self,
        read_ahead: ReadAhead,
        workers: Workers,
        progress: Progress,
        gates: Mapping[Gate, Tensor],
        watcher: Watcher,
        seats: Seats,
    ) -> None:
        self._watcher = watcher
        self._read_ahead = read_ahead
        self._gates = gates
        self._workers = workers
        self._progress = progress
        self._seats = seats
        self._next_number = 0

    def fill(self, shard: ShardPlan, file: ShardFile) -> None:
        """Computes the shard's tensors and writes them to their places.

        Raises:
            MergeError: The values of a tensor do not allow the merge.
            TransferError: A source did not arrive.
            PublishError: The disk refused.
        """
        first = self._next_number
        self._next_number += len(shard.tensors)
        try:
            self._workers.run(
                partial(self._make, number, tensor, file) for number, tensor in enumerate(shard.tensors, start=first)
            )
        except BaseException:
            self._read_ahead.abort()
            self._workers.stop()  # the caller may close the file once nobody writes to it
            raise

    def stop(self) -> None:
        """Ends the workers at their next read."""
        self._read_ahead.stop()

    def _make(self, number: int, tensor: OutputTensor, file: ShardFile) -> None:
        watch = self._watcher(tensor)
        try:
            with self._seats.one() as card:
                for start, data in bytes_of(tensor, self._read_ahead.source(number), watch, self._gates, card):
                    file.write(tensor.info.start + start, data.data)
                    self._progress.advance(Stage.MERGE, data.size)
            watch.finish()
        finally:
            self._read_ahead.release(number, tensor.expr)


@contextmanager
def open_stream(
    shards: Sequence[ShardPlan],
    files: Sequence[Files],
    *,
    options: StreamOptions,
    progress: Progress,
    gates: Mapping[Gate, Tensor] = NO_GATES,
    watcher: Watcher = lambda _tensor: Unwatched(),
) -> Iterator[Stream]:
    """Gives a stream that makes these shards, in this order, from parents whose files are given.

    Where torch computes, its number of threads is one while the stream is open: parallelism is over tensors. `gates`
    holds the values of the shards' Gate expressions.
    """
    exprs = [tensor.expr for shard in shards for tensor in shard.tensors]
    read_ahead = ReadAhead(
        files,
        exprs,
        budget_bytes=options.read_ahead_bytes,
        connections=options.connections,
        on_read=lambda size_bytes: progress.advance(Stage.READ, size_bytes),
    )
    seats = Seats(options.cards)
    workers = Workers(seats.workers(options.threads), "hubmerge-merge")
    stream = Stream(read_ahead, workers, progress, gates, watcher, seats)
    uses_torch = bool(options.cards) or any(map(needs_torch, exprs))
    with one_torch_thread() if uses_torch else nullcontext(), _brisk_switching(), read_ahead, workers:
        try:
            yield stream
        except BaseException:
            read_ahead.abort()
            raise
        finally:
            stream.stop()


@contextmanager
def _brisk_switching() -> Iterator[None]:
    """Has threads that compute in Python, such as a display, give way to workers, which need Python's lock for little.

    By default each call of a worker would wait for it for five milliseconds, several times as long as it computes.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Sets the process's number of torch threads to one while the block lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bytes_of(
    tensor: OutputTensor,
    source: BatchSource,
    watch: Watch,
    gates: Mapping[Gate, Tensor] = NO_GATES,
    card: Card | None = None,
) -> Iterator[tuple[int, Bytes]]:
    """Yields (offset in the tensor's data, bytes) from first to last; each is good until the next."""
    expr = tensor.expr
    if isinstance(expr, Gate):
        yield 0, rounded(gates[expr].flatten(), tensor.info.dtype)
    elif isinstance(expr, Same):
        yield from _copied_if_same(expr, tensor.info.name, source)
    elif isinstance(expr, Load) and expr.tensor.dtype == tensor.info.dtype:
        for start, data in _copied(expr, source):
            watch.copied(data)
            yield start, data
    else:
        yield from _computed(expr, tensor.info.dtype, source, watch, card)


def _computed(
    expr: Expr, dtype: str, source: BatchSource, watch: Watch, card: Card | None
) -> Iterator[tuple[int, Bytes]]:
    item_bytes = item_size(dtype)
    blocks = (
        evaluate_on_card(expr, dtype=dtype, source=source, card=card, watch=watch)
        if card is not None and is_for_card(expr)
        else evaluate(expr, dtype=dtype, source=source, watch=watch)
    )
    for block, data in blocks:
        yield block.start * item_bytes, data


def _copied(load: Load, source: BatchSource) -> Iterator[tuple[int, Bytes]]:
    data, size_bytes = source.open(load), load.tensor.size_bytes
    for start in range(0, size_bytes, COPY_BYTES):
        yield start, data.read(start, min(start + COPY_BYTES, size_bytes))


def _copied_if_same(expr: Same, name: str, source: BatchSource) -> Iterator[tuple[int, Bytes]]:
    first, *others = expr.inputs
    opened = [source.open(other) for other in others]
    for start, data in _copied(first, source):
        for other in opened:
            if not np.array_equal(data, other.read(start, start + data.size)):
                raise MergeError(
                    f"{name}: the parents hold different values, and dtype {first.tensor.dtype} cannot be merged",
                    hint="Merge models that share this tensor, or take it from one of them with a passthrough slice.",
                )
        yield start, data
