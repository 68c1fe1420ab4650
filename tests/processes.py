"""Processes that begin with everything imported, so that hundreds can be started and killed."""

from __future__ import annotations

import multiprocessing
import tempfile
from multiprocessing.context import ForkServerContext

PRELOADED = (
    *("hubmerge.cli", "hubmerge.cli.display", "hubmerge.merge.pipeline", "torch"),
    *("matplotlib.backends.backend_agg", "matplotlib.figure", "rich.console"),
    *("tests.chaos.command", "tests.merge.interrupted"),
)
"""All that merges import, and the modules whose functions are run."""


def forkserver() -> ForkServerContext:
    """Returns the context to start them in: the same for all tests, since its server is started once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def run_command(words: list[str], temporary: str) -> None:
    """Runs a command line and ends the process; temporary files go to a folder of its own."""
    from hubmerge.cli import main

    tempfile.tempdir = temporary
    main(words)
