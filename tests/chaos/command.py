"""The command line in a process of its own: impatient, and with its words in a file."""

from __future__ import annotations

import errno
import faulthandler
import os
import signal
import sys
import tempfile
import time

from tests.chaos.cases import Case

PATIENCE_SECONDS = 240
"""With a command, on a machine that does other things too; then it tells where it hangs."""
SILENCE_SECONDS = 1.5
"""Longest silence that a run puts up with here, so that stalled answers cost little."""
LONGEST_WAIT_SECONDS = 0.01
"""Between two tries."""


def run_command(words: list[str], temporary: str, output: str, case: Case) -> None:
    """Runs a command line and ends the process.

    Args:
        words: After the program's name.
        temporary: Where temporary files go.
        output: The file that stdout and stderr go to.
        case: What the machine is like.
    """
    import huggingface_hub.constants

    from hubmerge.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    _write_to(output)
    faulthandler.dump_traceback_later(PATIENCE_SECONDS, file=sys.stderr)
    tempfile.tempdir = temporary
    huggingface_hub.constants.HF_HUB_DISABLE_XET = not case.uses_xet
    _lose_patience()
    if not case.reserves:
        os.posix_fallocate = _reserve_nothing
    main(words)


def _write_to(output: str) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)


def _lose_patience() -> None:
    from hubmerge.weights import hub_client

    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, LONGEST_WAIT_SECONDS))
    hub_client.RetryPolicy.wait_seconds = lambda *_: LONGEST_WAIT_SECONDS  # type: ignore[method-assign]
    hub_client.RetryPolicy.timeout_seconds = SILENCE_SECONDS  # type: ignore[misc]
    for policy in (hub_client.PATIENT, hub_client.HASTY):
        object.__setattr__(policy, "timeout_seconds", SILENCE_SECONDS)
    hub_client.LONGEST_SILENCE_SECONDS = SILENCE_SECONDS


def _reserve_nothing(descriptor: int, offset: int, size_bytes: int) -> None:
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
