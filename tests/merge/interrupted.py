"""Merges in a process of their own that die at a chosen moment, as by kill -9 or a power cut."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.merge.progress import Silent, Stage
from hubmerge.merge.stream import StreamOptions
from tests.processes import forkserver

CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

OPTIONS = MergeOptions(shard_bytes=5_000, stream=StreamOptions(threads=2), diagnostics=False)
"""Files small enough for a handful of them."""

TWO_SHARDS = MergeOptions(shard_bytes=8_000, diagnostics=False)


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


def run_until(
    recipe: dict[str, Any], folder: Path, moment: str, calls: int, options: MergeOptions = OPTIONS
) -> int | None:
    """Returns the exit code of a merge in another process that is killed at the moment's given occurrence."""
    process = forkserver().Process(target=_merge_and_die, args=(recipe, folder, moment, calls, options))
    process.start()
    process.join(60)
    return process.exitcode


def _merge_and_die(recipe: dict[str, Any], folder: Path, moment: str, calls: int, options: MergeOptions) -> None:
    countdown = Countdown(calls)
    progress = {
        "tensor": DyingAt(Stage.MERGE, countdown),
        "shard": DyingAt(Stage.STAGE, countdown),
    }.get(moment, Silent())
    if moment == "event":
        _call_at_changes(folder, countdown)
    if moment == "move":
        _die_while_moving(folder, countdown)
    if moment == "tidy":
        shutil.rmtree = lambda path: countdown()  # type: ignore[assignment]
    merge_to_folder(recipe, folder, options=options, progress=progress)


def _call_at_changes(folder: Path, call: Callable[[], object]) -> None:
    """Calls just before every change to the folder."""
    root = str(folder)

    def note(event: str, details: tuple[object, ...]) -> None:
        if event not in CHANGES or not str(details[0]).startswith(root):
            return
        if event == "open" and not (isinstance(details[2], int) and details[2] & WRITING):
            return
        if event != "os.mkdir" or not Path(str(details[0])).exists():
            call()

    sys.addaudithook(note)


def _die_while_moving(folder: Path, countdown: Countdown) -> None:
    replace = Path.replace

    def replacing(source: Path, target: Path) -> Path:
        if target.parent == folder:
            countdown()
        return replace(source, target)

    Path.replace = replacing  # type: ignore[method-assign, assignment]
