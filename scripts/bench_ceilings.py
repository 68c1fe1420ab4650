"""Merges two models from Hub to Hub with less and less memory and disk, and measures what was taken of both.

    python scripts/bench_ceilings.py --folder bench-output

Each merge is a process of its own, with its temporary files, home and cache on a file system of its own. As root, the
kernel holds it to that and to its memory budget. The parents are those of run_bench_runner.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from bench_merge import Shape
from held import Usage, run_held
from rich.console import Console
from rich.table import Table
from run_bench_runner import PARENTS, check_room, model_bytes, push_parents

from hubmerge.localhub import LocalHub

SHAPE = Shape(hidden=2048, intermediate=5632, layers=6, vocabulary=32000, key_value=512)
BUDGETS = ((1000, 800, 400), (600, 400, 200), (400, 300, 150), (400, 200, 150))
"""MB of memory, of disk and of an output file; the last disk has room for one file at a time."""

OTHER_DISK_BYTES = 64_000_000
"""For the file system's own records, and the small files of a home, beside the budget, which is of output files."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="bench-output", help="for the Hub and the disks")
    folder = Path(parser.parse_args().folder).absolute()
    check_room(folder, 8 * model_bytes(SHAPE))
    work = folder / "ceilings"
    shutil.rmtree(work, ignore_errors=True)
    with LocalHub(work / "hub", transport="lfs") as hub:
        token = hub.create_user("bench")
        push_parents(hub, token, SHAPE, work)
        usages = [merge(token, work, *budget) for budget in BUDGETS]
    report(usages)
    shutil.rmtree(work)
    sys.exit(any(usage.exit_code for usage in usages))


def merge(token: str, work: Path, memory: int, disk: int, file: int) -> Usage:
    """Returns what a merge took within budgets in MB."""
    recipe = work / "recipe.yaml"
    models = [{"model": repo, "parameters": {"weight": 0.5}} for repo in PARENTS]
    recipe.write_text(json.dumps({"merge_method": "linear", "models": models, "dtype": "bfloat16"}))
    target = f"bench/merged-{memory}-{disk}"
    budgets = [f"--memory-budget={memory}MB", f"--disk-budget={disk}MB", f"--shard-size={file}MB"]
    folder = work / f"disk-{memory}-{disk}"
    inside = dict.fromkeys(("TMPDIR", "HOME", "HF_HOME"), str(folder))
    usage, _ = run_held(
        [sys.executable, "-m", "hubmerge", "merge-and-push", str(recipe), target, *budgets, "--json", "--quiet"],
        folder,
        os.environ | inside | {"HF_TOKEN": token, "HF_HUB_DISABLE_TELEMETRY": "1"},
        disk_limit_bytes=disk * 10**6 + OTHER_DISK_BYTES,
        memory_limit_bytes=memory * 10**6,
    )
    return usage


def report(usages: list[Usage]) -> None:
    keeper = "the kernel" if all(usage.is_enforced for usage in usages) else "a thread that looks"
    table = Table(title=f"linear of two models of {model_bytes(SHAPE) / 1e6:.0f} MB")
    for heading in ("memory budget", "memory", "disk budget", "disk", "output files of", "time"):
        table.add_column(heading, justify="right")
    for (memory, disk, file), usage in zip(BUDGETS, usages, strict=True):
        taken = f"{usage.memory_bytes / 1e6:.0f} MB", f"{usage.disk_bytes / 1e6:.0f} MB"
        ended = f"{usage.seconds:.0f} s" if usage.exit_code == 0 else f"failed with {usage.exit_code}"
        table.add_row(f"{memory} MB", taken[0], f"{disk} MB", taken[1], f"{file} MB", ended)
    Console().print(table, f"The limits were kept by {keeper}.")


if __name__ == "__main__":
    main()
