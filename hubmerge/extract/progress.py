"""How a running extraction tells where it is."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from hubmerge.extract.plan import ExtractPlan


class Stage(Enum):
    """What bytes of the two models go through."""

    READ = "read"
    FACTOR = "factored"


class Progress(Protocol):
    """Somebody who wants to know; the methods may be called from any thread and must be quick."""

    def begin(self, plan: ExtractPlan) -> None:
        """The plan is made and its execution begins."""

    def advance(self, stage: Stage, size_bytes: int) -> None:
        """So many more bytes of stored tensors went through a stage."""


class Silent:
    """Nobody wants to know."""

    def begin(self, plan: ExtractPlan) -> None:
        """Does nothing."""

    def advance(self, stage: Stage, size_bytes: int) -> None:
        """Does nothing."""
