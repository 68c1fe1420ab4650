"""A case played: the command as a process of its own, what it left, and the same command once more in peace."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.weights.shards import hash_file
from tests.chaos.cases import Case
from tests.end_to_end.merges import OPTIONS, SHARD_BYTES, Parents, linear, new_repo, shard_hashes, write_parents

PATIENCE_SECONDS = 90
SILENCE_SECONDS = 1.5
"""Longest silence that a run puts up with here, so that stalled answers cost little."""
SMALL_DISK_BYTES = 300_000
"""Less than a shard."""


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
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "hubmerge.merge.pipeline", "torch"])
    return World(hub, HfApi(token=hub.token), parents, expected, folder, context)


def play(case: Case, world: World) -> Outcome:
    """Returns what became of a case, its promises checked."""
    folder = world.folder / f"case-{case.seed}"
    folder.mkdir()
    (folder / "recipe.yml").write_text(str(world.parents.recipe()))
    target = str(folder / "merged") if case.to_folder else new_repo()
    command = _Command(world, case, folder, target)
    try:
        return _played(case, world, command)
    finally:
        world.hub.faults.clear()
        shutil.rmtree(folder)


def _played(case: Case, world: World, command: _Command) -> Outcome:
    for match, details in case.faults:
        world.hub.faults.add(match, **details)
    ending, message = command.run_with_event()
    world.hub.faults.clear()
    if ending == "done" and command.is_gone():
        ending, message = "error", "Error: the target was deleted when the merge was done"
    problem = _told_badly(ending, message) or command.half_written()
    for _ in range(2):  # the first may still have to say that the target has moved
        again, said = replace_event(command).run() if ending != "done" else ("done", "")
        if again == "done":
            break
    if again != "done":
        problem = problem or f"did not go on: {said}"
    problem = problem or command.half_written() or command.is_wrong()
    return Outcome(case, ending, message, problem)


def replace_event(command: _Command) -> _Command:
    """Returns the same command with nothing that interferes."""
    return replace(command, case=replace(command.case, event=None))


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

    def run_with_event(self) -> tuple[str, str]:
        match self.case.event:
            case "kill -9":
                return self.run(lambda process: process.kill())
            case "Ctrl-C":
                return self.run(lambda process: os.kill(process.pid or 0, signal.SIGINT))
            case "target moved":
                return self.run(lambda _: self._change_target())
            case "target deleted":
                return self.run(lambda _: self.world.api.delete_repo(self.target, missing_ok=True))
            case "two at once":
                rival = self._start("rival")
                result = self.run()
                rival.join(PATIENCE_SECONDS)
                told = _told_badly(*self._result(rival, "rival"))
                return result if told is None else ("exit of the rival", told)
        return self.run()

    def run(self, event: Callable[[ForkServerProcess], object] | None = None) -> tuple[str, str]:
        """Returns how the command ended and what it said; `event` happens after `case.after` requests."""
        self.world.hub.requests.clear()
        process = self._start("run")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while event is not None and process.is_alive() and time.monotonic() < deadline:
            if len(self.world.hub.requests) >= self.case.after:
                with contextlib.suppress(Exception):  # a fault may hit this request too
                    event(process)
                event = None
            time.sleep(0.001)
        process.join(max(0.0, deadline - time.monotonic()))
        return self._result(process, "run")

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
        branches = [branch.name for branch in self.world.api.list_repo_refs(self.target).branches]
        if found != self.world.expected:
            return f"wrong bytes in the repo: {sorted(found)}"
        return None if branches == ["main"] else f"branches left: {branches}"

    def _change_target(self) -> None:
        self.world.api.upload_file(path_or_fileobj=b"1", path_in_repo="theirs.txt", repo_id=self.target)

    def _start(self, name: str) -> ForkServerProcess:
        kind = ["merge"] if self.case.to_folder else ["merge-and-push"]
        options = ["--shard-size", str(SHARD_BYTES), "--quiet"]
        options += [] if self.case.to_folder else ["--target-token", self.world.hub.token]
        words = [*kind, str(self.folder / "recipe.yml"), self.target, *options]
        limit = SMALL_DISK_BYTES if self.case.event == "full disk" else None
        arguments = (words, str(self.folder), str(self.folder / name), limit, self.case.uses_xet)
        process = self.world.processes.Process(target=_run, args=arguments)
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


def _run(words: list[str], temporary: str, output: str, limit: int | None, uses_xet: bool) -> None:
    """Runs the command in a process of its own: impatient, and with its words in a file."""
    import huggingface_hub.constants

    from hubmerge.cli import main
    from hubmerge.weights import hub_client

    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    tempfile.tempdir = temporary
    huggingface_hub.constants.HF_HUB_DISABLE_XET = not uses_xet
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.01))
    hub_client.RetryPolicy.wait_seconds = lambda *_: 0.01  # type: ignore[method-assign]
    hub_client.RetryPolicy.timeout_seconds = SILENCE_SECONDS  # type: ignore[misc]
    for policy in (hub_client.PATIENT, hub_client.HASTY):
        object.__setattr__(policy, "timeout_seconds", SILENCE_SECONDS)
    hub_client.LONGEST_SILENCE_SECONDS = SILENCE_SECONDS
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    main(words)
