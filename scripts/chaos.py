"""Plays hundreds of merges on a local Hub while everything goes wrong, and prints what became of them.

    python scripts/chaos.py --runs 500 --seed 1

Every run must end in the right bytes or in one error sentence, its target must never be half-written, and the same
command must finish it afterwards. A run that breaks a promise is printed with its seed; `--only SEED` plays it again.
Ctrl-C ends the series with the totals so far. Only root may mount the small disk of a run whose disk fills up; for
others it is a limit on the size of files.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.play import Outcome

ROOT = Path(__file__).resolve().parents[1]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each has the next one")
    parser.add_argument("--only", type=int, metavar="SEED", help="play one run and print what it said")
    return parser.parse_args()


def main() -> None:
    """Plays the runs; exits with 1 if one broke a promise."""
    arguments = _arguments()
    with socket.socket() as probe, tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
        os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        os.environ.pop("HF_TOKEN", None)
        sys.path.insert(0, str(ROOT))
        sys.exit(_play_all(arguments, Path(folder), port))


def _play_all(arguments: argparse.Namespace, folder: Path, port: int) -> int:
    from hubmerge.localhub import LocalHub
    from tests.chaos.cases import draw
    from tests.chaos.play import build_world, play

    first, runs = (arguments.only, 1) if arguments.only is not None else (arguments.seed, arguments.runs)
    totals = Totals()
    with LocalHub(folder / "hub", port=port) as hub, contextlib.suppress(KeyboardInterrupt):
        world = build_world(hub, folder)
        for seed in range(first, first + runs):
            outcome = play(draw(seed), world)
            totals.add(outcome)
            if arguments.only is not None:
                print(outcome.case, outcome.ending, outcome.message, sep="\n")
    print(totals)
    return 1 if totals.broken else 0


class Totals:
    """What became of the runs so far."""

    def __init__(self) -> None:
        self.broken = 0
        self._endings: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._started = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Counts a run, and prints how it broke a promise if it did."""
        self._endings[outcome.ending] += 1
        self._kinds.update(outcome.case.kinds)
        if outcome.problem is not None:
            self.broken += 1
            kinds = ", ".join(outcome.case.kinds)
            print(f"seed {outcome.case.seed} ({kinds}): {outcome.problem}", flush=True)

    def __str__(self) -> str:
        runs, seconds = self._endings.total(), time.monotonic() - self._started
        ended = f"{runs} runs in {seconds:.0f} s: {_counts(self._endings)}; {self.broken} broke a promise"
        return f"{ended}\nwhat went wrong in them: {_counts(self._kinds)}"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


if __name__ == "__main__":
    main()
