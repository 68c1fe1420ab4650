"""What people see of a running preference tuning: one live line of the training on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from hubmerge.cli.display import MergeDisplay
from hubmerge.trainer.progress import DpoStage, Step

PLAIN_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""

STAGES = {
    DpoStage.PLAN: "Planning",
    DpoStage.DATA: "Reading the preferences",
    DpoStage.MERGE: "Merging what is tuned",
    DpoStage.TRAIN: "Training",
    DpoStage.FOLD: "Adding the adapter to the weights",
    DpoStage.PROVE: "Measuring on the held-out pairs",
    DpoStage.PUBLISH: "Publishing",
}


class DpoDisplay:
    """Shows a run; the merges in it are told in lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f} of {task.total:.0f}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._last_line = 0.0
        self._merging = MergeDisplay(console, pushes=True)

    def __enter__(self) -> DpoDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def merging(self) -> MergeDisplay:
        """What the merges report to; its bars are not started, as there is one live display already."""
        return self._merging

    def begin(self, stage: DpoStage) -> None:
        """Says what comes now."""
        self.say(f"{STAGES[stage]} ...")

    def step(self, step: Step) -> None:
        """Moves the bar, or prints a line now and then."""
        numbers = _numbers(step)
        if self._console.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task("step", total=step.total, numbers="")
            self._bar.update(self._task, completed=step.number, numbers=numbers)
        elif time.monotonic() - self._last_line >= PLAIN_SECONDS or step.number == step.total:
            self._last_line = time.monotonic()
            self.say(f"step {step.number:,} of {step.total:,}: {numbers}")

    def say(self, sentence: str) -> None:
        """Prints a line above the bar."""
        self._console.print(Text(sentence), soft_wrap=not self._console.is_terminal)


def _numbers(step: Step) -> str:
    used, foretold = (size_bytes / 2**30 for size_bytes in (step.memory_bytes, step.budget_bytes))
    memory = f", {used:.1f} of {foretold:.1f} GB" if step.memory_bytes else ""
    return (
        f"loss {step.loss:.3f}, margin {step.margin:.3g}, accuracy {step.accuracy:.0%}, "
        f"{step.tokens_per_second:,.0f} tokens/s{memory}"
    )
