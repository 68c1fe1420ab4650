"""What the machine refuses while a merge runs, and the disk that it may take."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hubmerge.errors import LimitError
from hubmerge.merge.plan import Plan, ShardPlan

SHARDS_ON_DISK = 2
"""One that is being filled and one that is being uploaded."""


@contextmanager
def explained_limits() -> Iterator[None]:
    """Turns a refusal of memory or threads into a sentence."""
    try:
        yield
    except MemoryError as error:
        raise _no_memory() from error
    except RuntimeError as error:
        if "can't start new thread" in str(error):
            raise LimitError(
                "the system allows this process no more threads",
                hint="Use fewer (--threads 1 --connections 1), or raise `ulimit -u`.",
            ) from error
        if "CUDA out of memory" in str(error):
            raise LimitError(
                "the CUDA device has not enough memory",
                hint="Compute fewer tensors at a time (--threads 1), use another device, or leave out --device.",
            ) from error
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise _no_memory() from error


def shards_at_once(plan: Plan, budget_bytes: int | None) -> int:
    """Returns how many shards of a push may be on the disk at a time: two, or one if the budget is smaller.

    Raises:
        LimitError: The largest shard alone exceeds the budget.
    """
    if budget_bytes is None or plan.disk_bytes <= budget_bytes:
        return SHARDS_ON_DISK
    largest = max(shard.size_bytes for shard in plan.shards)
    if largest > budget_bytes:
        raise LimitError(
            f"this merge needs {largest:,} bytes of disk at least, and the budget is {budget_bytes:,}",
            hint=f"Write smaller shards (--shard-size {max(1, budget_bytes // 2)}), or raise --disk-budget.",
        )
    return 1


def check_folder_budget(plan: Plan, budget_bytes: int | None) -> None:
    """Raises LimitError if the result of a merge to a folder exceeds the budget."""
    if budget_bytes is not None and plan.write_bytes > budget_bytes:
        raise LimitError(
            f"this merge writes {plan.write_bytes:,} bytes, and the disk budget is {budget_bytes:,}",
            hint="Raise --disk-budget, or push to a repo: `hubmerge merge-and-push` needs two shards of disk.",
        )


def check_free_disk(workspace: Path, todo: list[ShardPlan], *, at_once: int | None) -> None:
    """Raises LimitError if the disk has too little room for the shards that are to be made.

    Args:
        workspace: Where they are written.
        todo: What has to be made.
        at_once: How many are there at a time; None for all.
    """
    sizes = sorted((shard.size_bytes for shard in todo), reverse=True)
    needed, free = sum(sizes[:at_once]), shutil.disk_usage(workspace).free
    if needed > free:
        push = "write smaller shards (--shard-size), allow only one (--disk-budget), or choose another disk with TMPDIR"
        raise LimitError(
            f"the output needs {needed:,} bytes of disk in {workspace.parent}, which has {free:,} free",
            hint="Free some space" + (f", {push}." if at_once is not None else ", or choose another folder."),
        )


def _no_memory() -> LimitError:
    return LimitError(
        "there is not enough memory", hint="Give the merge less: --memory-budget, --threads 1, --read-ahead 64MB."
    )
