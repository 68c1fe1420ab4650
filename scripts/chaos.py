"""Plays hundreds of merges on a local Hub while everything goes wrong, and prints what became of them.

    python scripts/chaos.py --runs 500 --seed 1

Every run must end in the right bytes or in one error sentence, its target must never be half-written, and the same
command must finish it afterwards. A run that breaks a promise is printed with its seed; `--only SEED` plays it again.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

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
    endings: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    broken, started = 0, time.monotonic()
    with LocalHub(folder / "hub", port=port) as hub:
        world = build_world(hub, folder)
        for seed in range(first, first + runs):
            outcome = play(draw(seed), world)
            endings[outcome.ending] += 1
            kinds.update(outcome.case.kinds)
            if arguments.only is not None:
                print(outcome.case, outcome.ending, outcome.message, sep="\n")
            if outcome.problem is not None:
                broken += 1
                print(f"seed {seed} ({', '.join(outcome.case.kinds)}): {outcome.problem}", flush=True)
    print(f"{runs} runs in {time.monotonic() - started:.0f} s: {_counts(endings)}; {broken} broke a promise")
    print(f"what went wrong in them: {_counts(kinds)}")
    return 1 if broken else 0


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


if __name__ == "__main__":
    main()
