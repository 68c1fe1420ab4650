"""Merges in a process of their own that die at a chosen moment, as by kill -9 or a power cut."""

from __future__ import annotations

import multiprocessing
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

CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

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
    if moment == "event":
        _call_at_changes(folder, lambda kind: countdown())
    if moment == "move":
        _die_while_moving(folder, countdown)
    if moment == "tidy":
        shutil.rmtree = lambda path: countdown()  # type: ignore[assignment]
    merge_to_folder(recipe, folder, options=OPTIONS, progress=progress)


def events_of(recipe: dict[str, Any], folder: Path) -> list[str]:
    """Returns the changes that a merge makes to its folder, in order: `os.rename *.safetensors`."""
    log = folder.with_suffix(".log")
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_merge_and_record, args=(recipe, folder, log))
    process.start()
    process.join(60)
    return log.read_text().splitlines()


def _merge_and_record(recipe: dict[str, Any], folder: Path, log: Path) -> None:
    kinds: list[str] = []
    _call_at_changes(folder, kinds.append)
    merge_to_folder(recipe, folder, options=OPTIONS)
    log.write_text("\n".join(kinds))


def _call_at_changes(folder: Path, call: Callable[[str], object]) -> None:
    """Calls with the kind of every change to the folder just before it is made."""
    root = str(folder)

    def note(event: str, details: tuple[object, ...]) -> None:
        if event not in CHANGES or not str(details[0]).startswith(root):
            return
        if event == "open" and not (isinstance(details[2], int) and details[2] & WRITING):
            return
        name = Path(str(details[0])).name
        call(f"{event} {Path(name).suffix or name}")

    sys.addaudithook(note)


def _die_while_moving(folder: Path, countdown: Countdown) -> None:
    replace = Path.replace

    def replacing(source: Path, target: Path) -> Path:
        if target.parent == folder:
            countdown()
        return replace(source, target)

    Path.replace = replacing  # type: ignore[method-assign, assignment]
