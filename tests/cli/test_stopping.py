"""Ctrl-C and SIGTERM: a command ends soon whatever it waits for, and a second one ends it at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from hubmerge.localhub import LocalHub
from tests.checkpoints import CARD, push_folder, write_tensors
from tests.merge.recipes import whole

SOON_SECONDS = 15.0
"""The longest wait that is left is one for a silent connection, 10 seconds; a stalled upload would take minutes."""

STALL = {"delay_seconds": 60.0}


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    folder = write_tensors(tmp_path / "parent", {"weight": torch.ones(1_000, 8)})
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def push(hub: LocalHub, folder: Path, model: object, repo: str) -> subprocess.Popen[str]:
    (folder / "recipe.yml").write_text(yaml.safe_dump(whole("passthrough", model)))
    arguments = ["merge-and-push", folder / "recipe.yml", repo, "--target-token", hub.token]
    return subprocess.Popen(
        [sys.executable, "-m", "hubmerge", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def await_request(hub: LocalHub, process: subprocess.Popen[str], pattern: str) -> None:
    while not hub.requests.matching(pattern):
        assert process.poll() is None
        time.sleep(0.02)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_upload_that_stalls_does_not_hold_the_command(
    hub: LocalHub, tmp_path: Path, parent: Path, running: list[subprocess.Popen[str]], stop: signal.Signals
) -> None:
    repo, upload = f"local/stopped-{stop}", "POST .*/preupload/hubmerge"
    hub.faults.add(upload, **STALL)
    hub.requests.clear()
    running.append(process := push(hub, tmp_path, parent, repo))
    await_request(hub, process, upload)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=SOON_SECONDS)
    assert process.returncode == 130
    assert errors.endswith("Error: interrupted\nHint: Run the same command again; it goes on from what is finished.\n")


def test_a_download_that_fails_again_and_again_does_not_either(
    hub: LocalHub, tmp_path: Path, running: list[subprocess.Popen[str]]
) -> None:
    large = write_tensors(tmp_path / "large", {"weight": torch.ones(100_000)})
    push_folder(hub.token, "local/large", large)
    hub.faults.add("GET /cdn/", status=503, skip=1, headers={"Retry-After": "60"})
    hub.requests.clear()
    running.append(process := push(hub, tmp_path, "local/large", "local/stopped-reading"))
    while len(hub.requests.matching("GET /cdn/")) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=SOON_SECONDS)
    assert process.returncode == 130
