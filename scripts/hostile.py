"""Feeds whatever reads other people's files with made-up contents, and prints how many were read and how many refused.

    python scripts/hostile.py --inputs 500

A content must be read, or refused by an error of hubmerge, within seconds; anything else ends the run with the smallest
content that does it. The same seed makes the same contents.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[1]
LONGEST_BYTES = 400


def main() -> None:
    """Feeds every reader and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100, help="for each reader")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from tests.hostile.readers import BYTE_READERS, OBJECTS, READERS

    started, totals = time.monotonic(), Counter[str]()
    for name, read in READERS.items():
        totals += _fed(f"{name} of JSON", read, OBJECTS, arguments)
    for name, read in BYTE_READERS.items():
        totals += _fed(f"{name} of bytes", read, st.binary(max_size=LONGEST_BYTES), arguments)
    print(f"{totals.total()} inputs in {time.monotonic() - started:.0f} s: {_text(totals)}")


def _fed(name: str, read: Callable[[Any], object], contents: st.SearchStrategy[Any], arguments: Any) -> Counter[str]:
    from hubmerge.errors import HubmergeError

    endings: Counter[str] = Counter()

    @seed(arguments.seed)
    @settings(max_examples=arguments.inputs, deadline=10_000, database=None, suppress_health_check=list(HealthCheck))
    @given(contents)
    def feed(content: Any) -> None:
        try:
            read(content)
        except HubmergeError:
            endings["refused"] += 1
        else:
            endings["read"] += 1

    feed()
    print(f"{name}: {_text(endings)}", flush=True)
    return endings


def _text(endings: Counter[str]) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))


if __name__ == "__main__":
    main()
