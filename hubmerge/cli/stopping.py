"""How a running command is stopped: the first time in good order, the second time at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

INTERRUPTED = 130

STOPS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what a container gets that is stopped."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Makes the first stop a KeyboardInterrupt and the next one the end of the process, while the block lasts.

    A stop that the process was told to ignore, as a shell tells its background jobs, stays ignored.
    """
    before = {stop: signal.getsignal(stop) for stop in STOPS}
    for stop, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(stop, _interrupt)
    try:
        yield
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)


def leave() -> NoReturn:
    """Ends the process without waiting for its threads: one may be uploading gigabytes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):  # it may be closed, or have been so from the start
            stream.flush()
    os._exit(INTERRUPTED)


def _interrupt(*_: object) -> NoReturn:
    for stop in STOPS:
        signal.signal(stop, lambda *_: os._exit(INTERRUPTED))
    raise KeyboardInterrupt
