"""What taking a difference needs of memory, and how it is made to fit a budget."""

from __future__ import annotations

import math
from dataclasses import replace

from hubmerge.errors import LimitError
from hubmerge.extract.parts import Part
from hubmerge.extract.plan import ExtractOptions, ExtractPlan
from hubmerge.merge.memory import BLOCK_BYTES, PROCESS_BYTES, SMALLEST_READ_AHEAD_BYTES

FACTORING = 3
"""A difference, and twice as much for its SVD."""

OPERANDS = 4
"""Blocks that a thread works on: two operands and what is made of them."""

READ_AHEAD_SHARE = 4


def fitted(plan: ExtractPlan, options: ExtractOptions) -> ExtractOptions:
    """Returns options with which an adapter is made within its memory budget; the same ones if it has none.

    Raises:
        LimitError: The largest weight alone needs more.
    """
    if options.memory_bytes is None:
        return options
    spare = options.memory_bytes - PROCESS_BYTES - options.stream.threads * OPERANDS * BLOCK_BYTES
    least_ahead = max(SMALLEST_READ_AHEAD_BYTES, *map(_stored_bytes, plan.parts))
    largest = FACTORING * max(part.matrix_bytes for part in plan.parts)
    if spare < least_ahead + largest:
        raise _too_small(options.memory_bytes, missing_bytes=least_ahead + largest - spare)
    ahead = max(least_ahead, min(options.stream.read_ahead_bytes, spare // READ_AHEAD_SHARE, spare - largest))
    working = (spare - ahead) // FACTORING
    return replace(options, working_bytes=working, stream=replace(options.stream, read_ahead_bytes=ahead))


def _stored_bytes(part: Part) -> int:
    return sum(load.tensor.size_bytes for load in (part.finetuned, part.base) if load is not None)


def _too_small(budget_bytes: int, *, missing_bytes: int) -> LimitError:
    least, budget = (math.ceil(size_bytes / 1e6) for size_bytes in (budget_bytes + missing_bytes, budget_bytes))
    return LimitError(
        f"this adapter needs {least} MB of memory at least, and the budget is {budget} MB",
        hint=f"Give it --memory-budget {least}MB, or more.",
    )
