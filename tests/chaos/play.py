"""A case played: the command as a process of its own, what it left, and the same command once more in peace."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.weights.shards import hash_file
from tests.chaos.cases import DISK_EVENTS, Case
from tests.chaos.command import PATIENCE_SECONDS, run_command
from tests.chaos.disk import fill, limit_files, make_room, small_disk
from tests.end_to_end.merges import (
    OPTIONS,
    SHARD_BYTES,
    SHARD_COUNT,
    Parents,
    linear,
    new_repo,
    shard_hashes,
    write_parents,
)
from tests.processes import forkserver

DISK = "disk"
LONGEST_RUN_SECONDS = PATIENCE_SECONDS + 10


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        ending: `done`, `error` or `killed`.
        message: What the command said last.
        problem: How it broke a promise; None if it kept them all.
    """

    case: Case
    ending: str
    message: str
    problem: str | None


@dataclass(frozen=True)
class World:
    """What cases share."""

    hub: LocalHub
    api: HfApi
    parents: Parents
    expected: Mapping[str, str]
    folder: Path
    processes: ForkServerContext


def build_world(hub: LocalHub, folder: Path) -> World:
    """Returns two parents on the Hub, and what their merge is when nothing goes wrong."""
    parents = write_parents(folder / "parents", hub.token, owner="local")
    merged = folder / "expected"
    merge_to_folder(linear(parents.folders), merged, options=OPTIONS)
    expected = {path.name: hash_file(path) for path in merged.glob("*.safetensors")}
    return World(hub, HfApi(token=hub.token), parents, expected, folder, forkserver())


def play(case: Case, world: World) -> Outcome:
    """Returns what became of a case, its promises checked."""
    folder = world.folder / f"case-{case.seed}"
    folder.mkdir()
    (folder / "recipe.yml").write_text(str(world.parents.recipe()))
    target = str(folder / DISK / "merged") if case.to_folder else new_repo()
    try:
        with _disk(case, folder / DISK):
            return _played(case, world, _Command(world, case, folder, target))
    finally:
        world.hub.faults.clear()
        shutil.rmtree(folder)


@contextlib.contextmanager
def _disk(case: Case, folder: Path) -> Iterator[None]:
    """Makes the folder that everything is written to."""
    if case.event == "full disk":
        with small_disk(folder):
            yield
    else:
        folder.mkdir()
        yield


def _played(case: Case, world: World, command: _Command) -> Outcome:
    for match, details in case.faults:
        world.hub.faults.add(match, **details)
    ending, message = command.run_with_event()
    world.hub.faults.clear()
    make_room(command.disk)
    if ending == "done" and command.is_gone():
        ending, message = "error", "Error: the target was deleted when the merge was done"
    problem = _told_badly(ending, message) or command.half_written()
    again, said = (ending, message) if ending == "done" and command.is_tidy() else command.resumed()
    if again != "done":
        problem = problem or f"did not go on: {said}"
    problem = problem or command.half_written() or command.is_wrong()
    return Outcome(case, ending, message, problem)


def _told_badly(ending: str, message: str) -> str | None:
    if "Traceback" in message:
        return f"a traceback: {message}"
    lines = [line for line in message.splitlines() if line.startswith("Error: ")]
    if ending == "error" and len(lines) != 1:
        return f"not one error sentence: {message}"
    if ending.startswith("exit"):
        return f"{ending}: {message}"
    return None


@dataclass(frozen=True)
class _Command:
    world: World
    case: Case
    folder: Path
    target: str

    @property
    def disk(self) -> Path:
        """The folder that everything is written to."""
        return self.folder / DISK

    def resumed(self) -> tuple[str, str]:
        """Returns how the same command ends when nothing interferes; its first run may still find the target moved."""
        undisturbed = replace(self, case=replace(self.case, event=None))
        result = undisturbed.run()
        return result if result[0] == "done" else undisturbed.run()

    def run_with_event(self) -> tuple[str, str]:
        match self.case.event:
            case "kill -9":
                return self.run(lambda process: process.kill())
            case "Ctrl-C":
                return self.run(lambda process: os.kill(process.pid or 0, signal.SIGINT))
            case "full disk":
                return self.run(lambda process: self._fill_disk(process.pid or 0))
            case "file size limit":
                return self.run(lambda process: limit_files(process.pid or 0))
            case "target moved":
                return self.run(lambda _: self._change_target())
            case "target deleted":
                return self.run(lambda _: self.world.api.delete_repo(self.target, missing_ok=True))
            case "two at once":
                rival = self._start("rival")
                result = self.run()
                rival.join(LONGEST_RUN_SECONDS)
                told = _told_badly(*self._result(rival, "rival"))
                return result if told is None else ("exit of the rival", told)
        return self.run()

    def run(self, event: Callable[[ForkServerProcess], object] | None = None) -> tuple[str, str]:
        """Returns how the command ended and what it said; `event` happens in the meantime."""
        self.world.hub.requests.clear()
        process = self._start("run")
        deadline = time.monotonic() + LONGEST_RUN_SECONDS
        while event is not None and process.is_alive() and time.monotonic() < deadline:
            if self._is_time():
                with contextlib.suppress(Exception):  # a fault may hit this request too
                    event(process)
                event = None
            time.sleep(0.001)
        process.join(max(0.0, deadline - time.monotonic()))
        return self._result(process, "run")

    def _is_time(self) -> bool:
        if self.case.event in DISK_EVENTS:
            return any(self.disk.rglob(f"*-{1 + self.case.after % SHARD_COUNT:05}-of-*.part"))
        return len(self.world.hub.requests) >= self.case.after

    def is_gone(self) -> bool:
        """Returns whether somebody has deleted the target."""
        return not self.case.to_folder and not self.world.api.repo_exists(self.target)

    def half_written(self) -> str | None:
        """Returns what is wrong with a state of the target that a reader could have seen."""
        if self.case.to_folder:
            folder = Path(self.target)
            is_loadable = (folder / "config.json").exists()
            return "a folder that looks complete and is not" if is_loadable and self.is_wrong() else None
        if self.is_gone():
            return None
        for commit in self.world.api.list_repo_commits(self.target):
            if shard_hashes(self.world.api, self.target, commit.commit_id) not in ({}, self.world.expected):
                return f"main was half-written at {commit.commit_id}"
        return None

    def is_wrong(self) -> str | None:
        """Returns how the finished target differs from what it must be."""
        if self.case.to_folder:
            found = {path.name: hash_file(path) for path in Path(self.target).glob("*.safetensors")}
            return None if found == self.world.expected else f"wrong bytes in the folder: {sorted(found)}"
        found = shard_hashes(self.world.api, self.target)
        if found != self.world.expected:
            return f"wrong bytes in the repo: {sorted(found)}"
        return None if self.is_tidy() else "a staging branch is left"

    def is_tidy(self) -> bool:
        """Returns whether nothing is staged in the target; a fault may keep a finished run from removing it."""
        if self.case.to_folder:
            return True
        return [branch.name for branch in self.world.api.list_repo_refs(self.target).branches] == ["main"]

    def _fill_disk(self, process_id: int) -> None:
        if self.disk.is_mount():
            fill(self.disk)
        else:  # whoever may not mount a small disk
            limit_files(process_id)

    def _change_target(self) -> None:
        self.world.api.upload_file(path_or_fileobj=b"1", path_in_repo="theirs.txt", repo_id=self.target)

    def _start(self, name: str) -> ForkServerProcess:
        kind = ["merge"] if self.case.to_folder else ["merge-and-push"]
        options = ["--shard-size", str(SHARD_BYTES), "--quiet"]
        options += [] if self.case.to_folder else ["--target-token", self.world.hub.token]
        options += [] if self.case.diagnostics else ["--no-diagnostics"]
        words = [*kind, str(self.folder / "recipe.yml"), self.target, *options]
        arguments = (words, str(self.disk), str(self.folder / name), self.case)
        process = self.world.processes.Process(target=run_command, args=arguments)
        process.start()
        return process

    def _result(self, process: ForkServerProcess, name: str) -> tuple[str, str]:
        path = self.folder / name
        message = path.read_text(errors="replace") if path.exists() else ""
        if process.exitcode is None:
            process.kill()
            process.join()
            return "exit: it hung", message
        if process.exitcode == -signal.SIGKILL or process.exitcode == 130:
            return "killed", message
        endings = {0: "done", 1: "error"}
        return endings.get(process.exitcode, f"exit {process.exitcode}"), message
