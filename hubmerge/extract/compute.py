"""A plan of an adapter executed: worker threads take and factor differences, one tensor of each model at a time.

The memory in use is the read-ahead budget and the differences that are being factored, which a budget bounds as well.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import torch
from torch import Tensor

from hubmerge.errors import MergeError
from hubmerge.extract.factors import energy_of, factorise
from hubmerge.extract.parts import Kind, Part
from hubmerge.extract.plan import ExtractOptions, ExtractPlan
from hubmerge.extract.progress import Progress, Stage
from hubmerge.extract.report import Outcome
from hubmerge.extract.spool import Spool, Spooled
from hubmerge.merge.evaluate import evaluate
from hubmerge.merge.expr import Expr, Merge, loads
from hubmerge.merge.methods.method import Settings
from hubmerge.merge.nodes import Source
from hubmerge.merge.read_ahead import ReadAhead
from hubmerge.weights.dtypes import FLOAT_NAMES
from hubmerge.weights.files import Files

TORCH_DTYPES = {code: getattr(torch, name) for code, name in FLOAT_NAMES.items()}

SUBTRACT = Settings(shared={"normalize": False}, inputs=({"weight": 1.0}, {"weight": -1.0}))


def compute(plan: ExtractPlan, spool: Spool, options: ExtractOptions, progress: Progress) -> list[Outcome]:
    """Returns what became of each part, in order, the adapter's tensors in the spool.

    Raises:
        MergeError: A weight is not finite, or the factors do not fit their dtype.
        TransferError: A weight did not arrive.
        PublishError: The disk refused.
    """
    files: tuple[Files, ...] = (plan.finetuned.files, plan.base.files)
    read_ahead = ReadAhead(
        files,
        [_expr(part) for part in plan.parts],
        budget_bytes=options.stream.read_ahead_bytes,
        connections=options.stream.connections,
        on_read=lambda size_bytes: progress.advance(Stage.READ, size_bytes),
    )
    workers = ThreadPoolExecutor(options.stream.threads, "hubmerge-extract", torch.set_num_threads, (1,))
    torch_threads = torch.get_num_threads()
    try:
        with read_ahead, workers:
            return _Run(read_ahead, spool, options, progress).all(plan.parts, workers)
    finally:
        torch.set_num_threads(torch_threads)


class _Run:
    """The execution of one plan."""

    def __init__(self, read_ahead: ReadAhead, spool: Spool, options: ExtractOptions, progress: Progress) -> None:
        self._read_ahead = read_ahead
        self._spool = spool
        self._options = options
        self._progress = progress
        self._used_bytes = 0
        self._changed = threading.Condition()
        self._failed = False

    def all(self, parts: Sequence[Part], workers: ThreadPoolExecutor) -> list[Outcome]:
        """Returns the outcomes, in order; after an error nothing more is read."""
        tasks = []
        try:
            # Admitted one by one: what waits for memory must not hold up the bytes of what has it.
            for number, part in enumerate(parts):
                if not self._admit(part):
                    break
                tasks.append(workers.submit(self._one, number, part))
            wait(tasks, return_when=FIRST_EXCEPTION)
            return [task.result() for task in tasks]
        except BaseException:
            self._read_ahead.abort()
            workers.shutdown(cancel_futures=True)
            raise

    def _admit(self, part: Part) -> bool:
        """Waits for memory; returns whether there is still something to do."""
        most = self._options.working_bytes
        with self._changed:
            self._changed.wait_for(
                lambda: self._failed or not self._used_bytes or self._used_bytes + part.matrix_bytes <= most
            )
            self._used_bytes += part.matrix_bytes
            return not self._failed

    def _one(self, number: int, part: Part) -> Outcome:
        is_done = False
        try:
            with torch.inference_mode():
                outcome = self._outcome(part, self._read_ahead.source(number))
            self._progress.advance(Stage.FACTOR, sum(load.tensor.size_bytes for load in loads(_expr(part))))
            is_done = True
            return outcome
        finally:
            self._read_ahead.release(number, _expr(part))
            with self._changed:
                self._used_bytes -= part.matrix_bytes
                self._failed = self._failed or not is_done
                self._changed.notify_all()

    def _outcome(self, part: Part, source: Source) -> Outcome:
        if part.base is None:
            return Outcome(part, 0, None, 0.0, self._saved(part, source))
        difference = _values(_expr(part), source)
        energy = energy_of(difference)
        if not difference.isfinite().all():
            raise MergeError(f"{part.name}: the two models differ by numbers that are not finite")
        if part.kind is Kind.LEFT_OUT:
            return Outcome(part, 0, energy, energy, ())
        if not part.kind.is_low_rank:
            return Outcome(part, 0, energy, 0.0, self._saved(part, source))
        return self._factored(part, difference) if energy else Outcome(part, 0, 0.0, 0.0, ())

    def _saved(self, part: Part, source: Source) -> tuple[Spooled, ...]:
        values = _values(part.finetuned, source, dtype=self._options.dtype)
        parameter = part.name.rpartition(".")[2]
        return tuple(self._add(f"{module}.{parameter}", part, values) for module in part.modules)

    def _factored(self, part: Part, difference: Tensor) -> Outcome:
        dtype = TORCH_DTYPES[self._options.dtype]
        factors = factorise(difference, self._options.rule, dtype=dtype, seed=_seed(self._options.seed, part.name))
        left, right = factors.left, factors.right
        named = _named(part, left, right)
        tensors = [self._add(name, part, factor) for name, factor in named.items()]
        return Outcome(part, factors.rank, factors.energy, factors.lost, tuple(tensors))

    def _add(self, name: str, part: Part, tensor: Tensor) -> Spooled:
        if not tensor.isfinite().all():
            raise MergeError(
                f"{part.name}: its values do not fit the adapter's dtype",
                hint="Write the adapter with --dtype float32.",
            )
        return self._spool.add(name, self._options.dtype, tensor)


def _named(part: Part, left: Tensor, right: Tensor) -> dict[str, Tensor]:
    """Returns the factors of a weight under their names; with those of the head that is tied to it."""
    if part.kind is Kind.LINEAR:
        return {f"{part.module}.lora_A.weight": right, f"{part.module}.lora_B.weight": left}
    if part.kind is Kind.TRANSPOSED:
        return {f"{part.module}.lora_A.weight": left.T, f"{part.module}.lora_B.weight": right.T}
    named = {f"{part.module}.lora_embedding_A": left.T, f"{part.module}.lora_embedding_B": right.T}
    if part.tied_head is not None:
        named |= {f"{part.tied_head}.lora_A.weight": right, f"{part.tied_head}.lora_B.weight": left}
    return named


def _expr(part: Part) -> Expr:
    if part.base is None:
        return part.finetuned
    return Merge("linear", part.name, (part.finetuned, part.base), has_base=False, settings=SUBTRACT, seed=0)


def _values(expr: Expr, source: Source, *, dtype: str = "F32") -> Tensor:
    """Returns an expression's whole tensor."""
    result = torch.empty(loads(expr)[0].tensor.shape, dtype=TORCH_DTYPES[dtype])
    stored = result.view(-1).view(torch.uint8).numpy()
    for block, data in evaluate(expr, dtype=dtype, source=source):
        stored[block.start * result.itemsize : block.stop * result.itemsize] = data
    return result


def _seed(seed: int, name: str) -> int:
    """Returns the seed of one tensor's sketch, in [0, 2**63)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little") >> 1
