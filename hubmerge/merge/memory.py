"""What a merge needs of the machine, and how it is made to fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from hubmerge.errors import LimitError
from hubmerge.merge.expr import AddLora, Expr, Load, loads, walk
from hubmerge.merge.holding import ARITHMETIC_BYTES, held_bytes_at_most
from hubmerge.merge.methods.method import BLOCK_ELEMENTS
from hubmerge.merge.plan import Plan
from hubmerge.merge.stream import StreamOptions
from hubmerge.merge.windows import held_bytes
from hubmerge.weights.checkpoint import Checkpoint

PROCESS_BYTES = 300_000_000
"""Python with torch and the Hub client, before any tensor: resident size measured with torch 2.13 on Linux."""

TRANSFORMERS_BYTES = 300_000_000
"""What transformers adds to the process once a model's classes are imported."""

CARD_HOST_BYTES = 1_500_000_000
"""What CUDA's libraries and the pinned memory of one card's seats take of the host; an estimate, not measured."""

BLOCK_BYTES = 16 * BLOCK_ELEMENTS
"""A block of one operand as stored and in fp32, with room for what a method makes of it; or a run of them as stored."""

FP32_BYTES = 4

DEFAULT_SHARE = 4
"""A merge takes at most one part in so many of the memory that is available, unless it is told otherwise."""

SMALLEST_READ_AHEAD_BYTES = 1 << 20


def memory_bytes(plan: Plan, checkpoints: Sequence[Checkpoint], options: StreamOptions) -> int:
    """Returns an estimate of a merge's peak memory: the process, what is read ahead, and blocks in work."""
    return _Needs(plan, tuple(checkpoints)).memory_bytes(options)


def fitted(
    plan: Plan, checkpoints: Sequence[Checkpoint], options: StreamOptions, *, budget_bytes: int | None
) -> StreamOptions:
    """Returns options with which a merge stays within a budget: first less is read ahead, then fewer threads compute.

    Args:
        plan: The merge.
        checkpoints: Its parents.
        options: What it may use at most.
        budget_bytes: None for a share of what the machine has available, or whatever the merge needs at least if that
            is more; options that somebody chose are then kept.

    Raises:
        LimitError: No options stay within the budget, or the machine has less than the merge needs.
    """
    needs = _Needs(plan, tuple(checkpoints))
    least = needs.memory_bytes(replace(options, threads=1, read_ahead_bytes=SMALLEST_READ_AHEAD_BYTES))
    if budget_bytes is None:
        available = available_bytes()
        _check_available(least, available)
        if available is None or replace(options, cards=()) != StreamOptions():
            return options
        budget_bytes = max(least, available // DEFAULT_SHARE)
    if least > budget_bytes:
        raise LimitError(
            f"this merge needs {_text(least)} of memory at least, and the budget is {_text(budget_bytes)}",
            hint=f"Give it --memory-budget {_megabytes(least)}, or more.",
        )
    return needs.fit(options, budget_bytes)


def available_bytes() -> int | None:
    """Returns the memory that the machine and the control group of this process have left; None if they don't tell."""
    found = [size for size in (_machine_bytes(), _group_bytes()) if size is not None]
    return min(found, default=None)


def _check_available(least: int, available: int | None) -> None:
    if available is not None and least > available:
        raise LimitError(
            f"this merge needs {_text(least)} of memory at least, and {_text(available)} are available",
            hint="Use a machine with more memory, or end what takes it here.",
        )


@dataclass(frozen=True)
class _Needs:
    """The parts of a merge's peak memory."""

    plan: Plan
    checkpoints: tuple[Checkpoint, ...]

    def fit(self, options: StreamOptions, budget_bytes: int) -> StreamOptions:
        process = _process_bytes(options)
        spare = budget_bytes - process - self._read_ahead(SMALLEST_READ_AHEAD_BYTES)
        threads = max(1, min(options.threads, spare // max(1, self._worker_bytes)))
        left = budget_bytes - process - threads * self._worker_bytes
        read_ahead = max(SMALLEST_READ_AHEAD_BYTES, min(options.read_ahead_bytes, left))
        return replace(options, threads=threads, read_ahead_bytes=read_ahead)

    def memory_bytes(self, options: StreamOptions) -> int:
        read_ahead = self._read_ahead(options.read_ahead_bytes)
        return _process_bytes(options) + max(
            read_ahead + options.threads * self._worker_bytes, self._routing_bytes(options)
        )

    def _routing_bytes(self, options: StreamOptions) -> int:
        """Returns what prompts need that are run before the weights are streamed: a layer in fp32, and transformers."""
        routing = self.plan.routing
        if routing is None or not routing.layers:
            return 0
        read_ahead = min(options.read_ahead_bytes, self.plan.read_bytes)
        return TRANSFORMERS_BYTES + read_ahead + FP32_BYTES * routing.layer_elements

    def _read_ahead(self, budget_bytes: int) -> int:
        largest = max((held_bytes(expr, remote, budget_bytes=budget_bytes) for expr, remote in self._remote), default=0)
        return max(largest, min(budget_bytes, self._remote_bytes))

    @cached_property
    def _remote_bytes(self) -> int:
        return sum(load.tensor.size_bytes for _, group in self._remote for load in group)

    @cached_property
    def _worker_bytes(self) -> int:
        return max((_work_bytes(tensor.expr) for tensor in self.plan.tensors), default=0)

    @cached_property
    def _remote(self) -> list[tuple[Expr, list[Load]]]:
        return [(tensor.expr, list(self._remote_loads(tensor.expr))) for tensor in self.plan.tensors]

    def _remote_loads(self, expr: Expr) -> Iterator[Load]:
        return (load for load in loads(expr) if (load.parent, load.file) in self._remote_files)

    @cached_property
    def _remote_files(self) -> set[tuple[int, str]]:
        return {
            (number, path)
            for number, checkpoint in enumerate(self.checkpoints)
            for path in dict.fromkeys(source.file for source in checkpoint.tensors.values())
            if checkpoint.files.local_path(path) is None
        }


def _process_bytes(options: StreamOptions) -> int:
    return PROCESS_BYTES + CARD_HOST_BYTES * len(options.cards)


def _work_bytes(expr: Expr) -> int:
    """Returns what one worker holds for an output tensor, beside what was read ahead."""
    return (len(loads(expr)) + 2) * BLOCK_BYTES + _factor_bytes(expr) + held_bytes_at_most(expr)


def _factor_bytes(expr: Expr) -> int:
    """Returns the size of the adapters' matrices of one tensor in the dtype of arithmetic: they are held whole."""
    adapted = (part for part in walk(expr) if isinstance(part, AddLora))
    return sum(ARITHMETIC_BYTES[part.is_double] * (part.a.tensor.elements + part.b.tensor.elements) for part in adapted)


def _machine_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None else int(found) << 10


def _group_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Returns what the control group leaves, of version 2 or 1; pages of files can be given back and do not count."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, now = (root / limit).read_text().strip(), int((root / used).read_text())
            statistics = dict(line.split() for line in (root / used).with_name("memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most.isdecimal():
            return max(0, int(most) - now + int(statistics.get(cached, 0)))
    return None


def _text(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 10**9 else f"{math.ceil(size_bytes / 1e6)} MB"


def _megabytes(size_bytes: int) -> str:
    return f"{math.ceil(size_bytes / 1e6)}MB"
