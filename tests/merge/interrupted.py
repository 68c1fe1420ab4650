"""Merges in a process of their own that die at a chosen moment, as by kill -9 or a power cut."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from hubmerge.merge.pipeline import MergeOptions, merge_to_folder
from hubmerge.merge.progress import Silent, Stage
from hubmerge.merge.stream import StreamOptions

OPTIONS = MergeOptions(shard_bytes=5_000, stream=StreamOptions(threads=2), diagnostics=False)
"""Files small enough for a handful of them."""


class Countdown:
    """Kills the process at the last of so many calls."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingAt(Silent):
    """Dies when a stage has been reported so often."""

    def __init__(self, stage: Stage, countdown: Countdown) -> None:
        self._stage = stage
        self._countdown = countdown

    def advance(self, stage: Stage, size_bytes: int) -> None:
        if stage is self._stage:
            self._countdown()


def run_until(recipe: dict[str, Any], folder: Path, moment: str, calls: int) -> int | None:
    """Returns the exit code of a merge in another process that is killed at the moment's given occurrence."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_merge_and_die, args=(recipe, folder, moment, calls))
    process.start()
    process.join(60)
    return process.exitcode


def _merge_and_die(recipe: dict[str, Any], folder: Path, moment: str, calls: int) -> None:
    countdown = Countdown(calls)
    progress = {
        "tensor": DyingAt(Stage.MERGE, countdown),
        "shard": DyingAt(Stage.STAGE, countdown),
    }.get(moment, Silent())
    if moment == "move":
        _die_while_moving(folder, countdown)
    if moment == "tidy":
        shutil.rmtree = lambda path: countdown()  # type: ignore[assignment]
    merge_to_folder(recipe, folder, options=OPTIONS, progress=progress)


def _die_while_moving(folder: Path, countdown: Countdown) -> None:
    replace = Path.replace

    def replacing(source: Path, target: Path) -> Path:
        if target.parent == folder:
            countdown()
        return replace(source, target)

    Path.replace = replacing  # type: ignore[method-assign, assignment]
