"""How a running merge tells where it is; the pipeline reports, whoever called it shows."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from hubmerge.merge.plan import Plan


class Stage(Enum):
    """What bytes go through on their way from the parents to the target."""

    READ = "read"
    MERGE = "merged"
    STAGE = "uploaded"


class Progress(Protocol):
    """Somebody who wants to know; the methods may be called from any thread and must be quick."""

    def begin(self, plan: Plan) -> None:
        """The plan is made and its execution begins."""

    def advance(self, stage: Stage, size_bytes: int) -> None:
        """So many more bytes went through a stage: of parents' tensors (READ) or of output files (the others)."""

    def skip(self, filename: str, size_bytes: int) -> None:
        """An output file need not be made: it arrived in an earlier run."""

    def say(self, sentence: str) -> None:
        """Something happened that a person wants to read."""


class Silent:
    """Nobody wants to know."""

    def begin(self, plan: Plan) -> None:
        """Does nothing."""

    def advance(self, stage: Stage, size_bytes: int) -> None:
        """Does nothing."""

    def skip(self, filename: str, size_bytes: int) -> None:
        """Does nothing."""

    def say(self, sentence: str) -> None:
        """Does nothing."""
