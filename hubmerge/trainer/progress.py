"""What a running preference tuning tells: stages, sentences, and one report a step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from hubmerge.merge.plan import Plan
from hubmerge.merge.progress import Progress, Silent, Stage


class DpoStage(Enum):
    """The parts of a run, in their order."""

    PLAN = "plan"
    DATA = "data"
    MERGE = "merge"
    TRAIN = "train"
    FOLD = "fold"
    PROVE = "prove"
    PUBLISH = "publish"


@dataclass(frozen=True)
class Step:
    """One step of the optimiser.

    Attributes:
        number: From 1.
        total: Steps of the whole training.
        margin: Mean difference of the rewards of chosen and rejected answers.
        accuracy: Share of pairs with a positive difference; a tie counts as none.
        memory_bytes: Most that tensors took on the GPU so far; 0 without one.
        budget_bytes: What the plan foretold of that.
    """

    number: int
    total: int
    loss: float
    margin: float
    accuracy: float
    tokens_per_second: float
    memory_bytes: int
    budget_bytes: int


class DpoProgress(Protocol):
    """Whoever shows a run; the merges in it (of the recipe, and the folding in) report to `merging`."""

    @property
    def merging(self) -> Progress:
        """What a merge reports to."""

    def begin(self, stage: DpoStage) -> None:
        """A part of the run begins."""

    def step(self, step: Step) -> None:
        """The optimiser made a step."""

    def say(self, sentence: str) -> None:
        """There is something that a person should know."""


class Unseen:
    """Shows nothing."""

    @property
    def merging(self) -> Progress:
        """Silence."""
        return Silent()

    def begin(self, stage: DpoStage) -> None:
        """Nothing."""

    def step(self, step: Step) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Wordless:
    """A merge within a run shown without its sentences: of the licence, what was said of the whole run holds."""

    shown: Progress

    def begin(self, plan: Plan) -> None:
        """As it is told."""
        self.shown.begin(plan)

    def advance(self, stage: Stage, size_bytes: int) -> None:
        """As it is told."""
        self.shown.advance(stage, size_bytes)

    def skip(self, filename: str, size_bytes: int) -> None:
        """As it is told."""
        self.shown.skip(filename, size_bytes)

    def say(self, sentence: str) -> None:
        """Nothing."""
