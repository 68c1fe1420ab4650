"""Pieces of a merge computed again from its parents, and compared with what was published."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from hubmerge.merge.evaluate import evaluate, needs_torch
from hubmerge.merge.expr import Gate, Load, Same, loads
from hubmerge.merge.methods.method import Block
from hubmerge.merge.moe.gates import find_gates
from hubmerge.merge.nodes import Bytes
from hubmerge.merge.plan import OutputTensor
from hubmerge.merge.progress import Silent
from hubmerge.merge.read_ahead import BatchSource, ReadAhead, StoredTensor
from hubmerge.merge.stream import StreamOptions, bytes_of, one_torch_thread
from hubmerge.merge.watch import Unwatched
from hubmerge.verify.compare import Differences
from hubmerge.verify.rebuild import Rebuilt
from hubmerge.verify.sample import Piece
from hubmerge.weights.checkpoint import SourceTensor
from hubmerge.weights.files import Files
from hubmerge.weights.header import item_size

if TYPE_CHECKING:
    from torch import Tensor

OnRead = Callable[[int], None]


class Recomputation:
    """Computes pieces of a merge again.

    Args:
        rebuilt: The merge planned again.
        result: Files of the published merge.
        stored: Where its tensors lie.
        tolerance_ulps: Most that values may differ by; see `compare`.
        options: What may be used of the machine.
        on_read: Told the bytes of every piece that is done, of parents and result together; called from any thread.
    """

    def __init__(
        self,
        rebuilt: Rebuilt,
        result: Files,
        stored: Mapping[str, SourceTensor],
        *,
        tolerance_ulps: float,
        options: StreamOptions,
        on_read: OnRead,
    ) -> None:
        self._rebuilt = rebuilt
        self._files = (*(checkpoint.files for checkpoint in rebuilt.checkpoints), result)
        self._stored = stored
        self._tolerance_ulps = tolerance_ulps
        self._options = options
        self._on_read = on_read
        self._stopped = threading.Event()

    def run(self, pieces: Sequence[Piece]) -> dict[str, Differences]:
        """Returns what differs, by the name of every tensor that was looked at.

        Raises:
            MergeError: The values of a tensor do not allow the merge.
            TransferError: Bytes did not arrive.
        """
        whole = [piece.tensor for piece in pieces if piece.block is None]
        blocks = [piece for piece in pieces if piece.block is not None]
        uses_torch = any(needs_torch(piece.tensor.expr) for piece in pieces)
        with one_torch_thread() if uses_torch else nullcontext():
            found = [*self._run_blocks(blocks), *self._run_whole(whole)]
        return _joined(found)

    def _run_whole(self, tensors: Sequence[OutputTensor]) -> list[tuple[str, Differences]]:
        """Compares whole tensors, read ahead as a merge reads them; the published tensor is one more source."""
        gates = self._gates(tensors)
        sources = [Same((*loads(tensor.expr), self._published(tensor))) for tensor in tensors]
        read_ahead = ReadAhead(
            self._files,
            sources,
            budget_bytes=self._options.read_ahead_bytes,
            connections=self._options.connections,
            on_read=self._on_read,
        )

        def compare(number: int) -> tuple[str, Differences]:
            try:
                return self._compare_whole(tensors[number], read_ahead.source(number), gates)
            finally:
                read_ahead.release(number, sources[number])

        with read_ahead, ThreadPoolExecutor(self._options.threads, "hubmerge-verify") as workers:
            try:
                return list(workers.map(compare, range(len(tensors))))
            except BaseException:
                read_ahead.abort()
                raise

    def _compare_whole(
        self, tensor: OutputTensor, source: BatchSource, gates: Mapping[Gate, Tensor]
    ) -> tuple[str, Differences]:
        stored, found = source.open(self._published(tensor)), self._differences(tensor)
        for start, data in bytes_of(tensor, source, Unwatched(), gates):
            found.add(data, stored.read(start, start + data.size))
        return tensor.info.name, found

    def _gates(self, tensors: Sequence[OutputTensor]) -> Mapping[Gate, Tensor]:
        """Returns the routers among these tensors that prompts decide; none if there are none."""
        names = {tensor.info.name for tensor in tensors if isinstance(tensor.expr, Gate)}
        plan, checkpoints = self._rebuilt.plan, self._rebuilt.checkpoints
        shards = [replace(s, tensors=tuple(t for t in s.tensors if t.info.name in names)) for s in plan.shards]
        return find_gates(plan, shards, checkpoints, options=self._options, progress=Silent())

    def _run_blocks(self, pieces: Sequence[Piece]) -> list[tuple[str, Differences]]:
        """Compares single blocks, whose bytes are asked for one by one."""
        with ThreadPoolExecutor(self._options.connections, "hubmerge-verify") as workers:
            try:
                return list(workers.map(self._compare_block, pieces))
            except BaseException:
                self._stopped.set()
                raise

    def _compare_block(self, piece: Piece) -> tuple[str, Differences]:
        tensor, block = piece.tensor, piece.block
        assert block is not None
        found, item_bytes = self._differences(tensor), item_size(tensor.info.dtype)
        stored = self.open(self._published(tensor)).read(block.start * item_bytes, block.stop * item_bytes)
        found.add(self._computed(tensor, block), stored)
        self._on_read(piece.parent_bytes + piece.result_bytes)
        return tensor.info.name, found

    def _computed(self, tensor: OutputTensor, block: Block) -> Bytes:
        expr, dtype = tensor.expr, tensor.info.dtype
        if isinstance(expr, Load) and expr.tensor.dtype == dtype:
            return self.open(expr).read(block.start * item_size(dtype), block.stop * item_size(dtype))
        return next(data for _, data in evaluate(expr, dtype=dtype, source=self, blocks=(block,)))

    def open(self, load: Load) -> StoredTensor:
        """Returns a tensor whose bytes are read when they are asked for."""
        return StoredTensor(self._files[load.parent], load, self._stopped)

    def _published(self, tensor: OutputTensor) -> Load:
        source = self._stored[tensor.info.name]
        return Load(len(self._files) - 1, source.file, source.info)

    def _differences(self, tensor: OutputTensor) -> Differences:
        return Differences(tensor.info.dtype, self._tolerance_ulps)


def _joined(found: Sequence[tuple[str, Differences]]) -> dict[str, Differences]:
    """Returns one comparison a tensor."""
    joined: dict[str, Differences] = {}
    for name, each in found:
        if name in joined:
            joined[name].join(each)
        else:
            joined[name] = each
    return joined
