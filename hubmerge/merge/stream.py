"""A plan executed: its tensors computed by worker threads and written to their places, shard by shard.

Readers (see read_ahead) bring the sources of later tensors while workers compute earlier ones. A worker takes one
output tensor at a time, in order, and writes it block by block; so memory is the read-ahead budget and a few blocks a
worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hubmerge.errors import MergeError
from hubmerge.merge.evaluate import evaluate
from hubmerge.merge.expr import Expr, Load, Same
from hubmerge.merge.plan import OutputTensor, ShardPlan
from hubmerge.merge.progress import Progress, Stage
from hubmerge.merge.read_ahead import BatchSource, ReadAhead, buffer_of
from hubmerge.weights.files import Files
from hubmerge.weights.shards import ShardFile

COPY_BYTES = 4 << 20
"""Bytes of a tensor that is only copied, moved at a time."""


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
    """

    threads: int = field(default_factory=usable_cores)
    read_ahead_bytes: int = 512 << 20
    connections: int = 8


class Stream:
    """Executes shards of a plan, in order, each once. Made by `open_stream`."""

    def __init__(self, read_ahead: ReadAhead, workers: ThreadPoolExecutor, progress: Progress) -> None:
        self._read_ahead = read_ahead
        self._workers = workers
        self._progress = progress
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
            tasks = [
                self._workers.submit(self._make, number, tensor, file)
                for number, tensor in enumerate(shard.tensors, start=first)
            ]
            done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            for task in tasks:
                if task in done:
                    task.result()
        except BaseException:
            self._read_ahead.abort()
            self._workers.shutdown(cancel_futures=True)  # the caller may close the file once nobody writes to it
            raise

    def stop(self) -> None:
        """Ends the workers at their next read."""
        self._read_ahead.stop()

    def _make(self, number: int, tensor: OutputTensor, file: ShardFile) -> None:
        try:
            for start, data in _bytes_of(tensor, self._read_ahead.source(number)):
                file.write(tensor.info.start + start, buffer_of(data))
                self._progress.advance(Stage.MERGE, data.numel())
        finally:
            self._read_ahead.release(number, tensor.expr)


@contextmanager
def open_stream(
    shards: Sequence[ShardPlan], files: Sequence[Files], *, options: StreamOptions, progress: Progress
) -> Iterator[Stream]:
    """Gives a stream that makes these shards, in this order, from parents whose files are given.

    The process's number of torch threads is one while it is open: parallelism is over tensors.
    """
    exprs = [tensor.expr for shard in shards for tensor in shard.tensors]
    read_ahead = ReadAhead(
        files,
        exprs,
        budget_bytes=options.read_ahead_bytes,
        connections=options.connections,
        on_read=lambda size_bytes: progress.advance(Stage.READ, size_bytes),
    )
    workers = ThreadPoolExecutor(options.threads, "hubmerge-merge", initializer=torch.set_num_threads, initargs=(1,))
    torch_threads = torch.get_num_threads()
    stream = Stream(read_ahead, workers, progress)
    try:
        with read_ahead, workers:
            try:
                yield stream
            except BaseException:
                read_ahead.abort()
                raise
            finally:
                stream.stop()
    finally:
        torch.set_num_threads(torch_threads)


def _bytes_of(tensor: OutputTensor, source: BatchSource) -> Iterator[tuple[int, Tensor]]:
    """Yields (offset in the tensor's data, bytes as uint8) from first to last."""
    expr = tensor.expr
    if isinstance(expr, Same):
        yield from _copied_if_same(expr, tensor.info.name, source)
    elif isinstance(expr, Load) and expr.tensor.dtype == tensor.info.dtype:
        yield from _copied(expr, source)
    else:
        yield from _computed(expr, tensor.info.dtype, source)


def _computed(expr: Expr, dtype: str, source: BatchSource) -> Iterator[tuple[int, Tensor]]:
    with torch.inference_mode():
        for block, values in evaluate(expr, dtype=dtype, source=source):
            yield block.start * values.itemsize, values.contiguous().view(torch.uint8)


def _copied(load: Load, source: BatchSource) -> Iterator[tuple[int, Tensor]]:
    size_bytes = load.tensor.size_bytes
    for start in range(0, size_bytes, COPY_BYTES):
        yield start, source.read(load, start, min(start + COPY_BYTES, size_bytes))


def _copied_if_same(expr: Same, name: str, source: BatchSource) -> Iterator[tuple[int, Tensor]]:
    first, *others = expr.inputs
    for start, data in _copied(first, source):
        for other in others:
            if not torch.equal(data, source.read(other, start, start + data.numel())):
                raise MergeError(
                    f"{name}: the parents hold different values, and dtype {first.tensor.dtype} cannot be merged",
                    hint="Merge models that share this tensor, or take it from one of them with a passthrough slice.",
                )
        yield start, data
