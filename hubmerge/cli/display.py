"""What people see: a plan as tables, a running merge as one display, sizes and times in words.

Everything here goes to stderr or is handed to the CLI as an object to print; results go to stdout from there.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hubmerge.card.facts import LicenceDecision, Outcome
from hubmerge.lineage.progress import Progress as CrawlProgress
from hubmerge.merge.explain import method_words, modules_text, parent_role, tensor_groups
from hubmerge.merge.plan import Plan
from hubmerge.merge.progress import Stage

SHOW_SECONDS = 0.1
"""Between two movements of a bar."""

PLAIN_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""


def size_text(size_bytes: float) -> str:
    """Returns a size as people say it, in powers of 1000 as disks and networks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 999.5:  # what is more is rounded up to the next unit
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"


def plan_view(plan: Plan, *, memory_bytes: int, licence: LicenceDecision) -> RenderableType:
    """Returns a plan for reading: parents, what becomes of which tensors, output files, cost, licence and notes."""
    method = method_words(plan.recipe)
    cost = (
        f"reads {size_text(plan.read_bytes)} of {size_text(sum(parent.stored_bytes for parent in plan.parents))}"
        f" · writes {size_text(plan.write_bytes)} in {len(plan.shards)} file{'s' * (len(plan.shards) > 1)}"
        f" · needs at most {size_text(plan.disk_bytes)} of disk to push and about {size_text(memory_bytes)} of memory"
        + ("" if plan.device == "cpu" else f" · computed on {plan.device}, rounded as there")
    )
    notes = [Text(f"! {note}", style="yellow") for note in plan.notes]
    parts = [Text(f"modules: {modules_text(plan)}")] if len(plan.modules) > 1 else []
    heading = Text(f"{method.title}: {method.summary}", style="bold")
    tables = (_parents_table(plan), _groups_table(plan), _shards_table(plan))
    return Group(heading, *tables, *parts, Text(cost), *_licence_lines(licence), *notes)


def _licence_lines(licence: LicenceDecision) -> Iterator[Text]:
    verdicts = {
        Outcome.CONSENT: "none can be derived; publishing needs --license and --license-reason",
        Outcome.FORBIDDEN: "publishing is not allowed; it needs --license and --license-reason",
    }
    yield Text(f"licence: {verdicts.get(licence.outcome, licence.name or licence.license)}")
    for reason in licence.reasons:
        yield Text(f"  - {reason}")
    for warning in licence.warnings:
        yield Text(f"! {warning}", style="yellow")


def _parents_table(plan: Plan) -> Table:
    table = plain_table("parent", "commit", "role", "read")
    for parent in plan.parents:
        table.add_row(
            escape(str(parent.ref)),
            parent.sha[:12] if parent.sha else "folder",
            escape(parent_role(plan.recipe, parent.ref)),
            size_text(parent.read_bytes),
        )
    return table


def _groups_table(plan: Plan) -> Table:
    table = plain_table("tensors", "number", "made by", "parameters")
    for group in tensor_groups(plan):
        shown = "\n".join(group.names[:4]) + (f"\n… and {len(group.names) - 4} more" if len(group.names) > 4 else "")
        table.add_row(escape(shown), str(group.count), group.made_by, group.parameters)
    return table


def _shards_table(plan: Plan) -> Table:
    table = plain_table("output file", "tensors", "size")
    for shard in plan.shards:
        table.add_row(shard.filename, str(len(shard.tensors)), size_text(shard.size_bytes))
    return table


def plain_table(*headings: str) -> Table:
    """Returns an empty table without lines around it."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


@contextmanager
def crawl_progress(console: Console) -> Iterator[CrawlProgress]:
    """Gives what shows how far a crawl is, on a terminal; elsewhere nothing is shown."""
    with console.status("Asking the Hub") as status:
        yield lambda looked_at, known, name: status.update(f"{looked_at} of at least {known} models: {escape(name)}")


class _Amount(ProgressColumn):
    """Done and total, in one unit."""

    def render(self, task: Task) -> Text:
        return Text(f"{size_text(task.completed)} of {size_text(task.total or 0)}")


class Bars:
    """Stages of work in one live display on a terminal; a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(),
            _Amount(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[Enum, TaskID] = {}
        self._moved: Counter[Enum] = Counter()
        self._last_shown = self._last_line = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._show(self._moved)
        self._bars.stop()

    def start(self, totals: Mapping[Enum, int]) -> None:
        """Shows a bar for each stage and its bytes."""
        for stage, total in totals.items():
            self._tasks[stage] = self._bars.add_task(str(stage.value), total=total)

    def advance(self, stage: Enum, size_bytes: int) -> None:
        """Moves a bar, in steps that people can see: workers report every block."""
        with self._lock:
            self._moved[stage] += size_bytes
            if time.monotonic() - self._last_shown < SHOW_SECONDS:
                return
            self._last_shown = time.monotonic()
            moved, self._moved = self._moved, Counter()
        self._show(moved)
        self._say_sometimes()

    def say(self, sentence: str) -> None:
        """Prints a line above the bars."""
        self._console.print(Text(sentence), soft_wrap=not self._console.is_terminal)

    def _show(self, moved: Mapping[Enum, int]) -> None:
        for stage in moved.keys() & self._tasks.keys():
            self._bars.advance(self._tasks[stage], moved[stage])

    def _say_sometimes(self) -> None:
        with self._lock:
            if self._console.is_terminal or time.monotonic() - self._last_line < PLAIN_SECONDS:
                return
            self._last_line = time.monotonic()
        self.say(
            ", ".join(
                f"{t.description} {size_text(t.completed)} of {size_text(t.total or 0)}" for t in self._bars.tasks
            )
        )


class MergeDisplay(Bars):
    """A running merge."""

    def __init__(self, console: Console, *, pushes: bool) -> None:
        super().__init__(console)
        self._stages = tuple(Stage) if pushes else (Stage.READ, Stage.MERGE)

    def begin(self, plan: Plan) -> None:
        """Shows what there is to do."""
        totals = {Stage.READ: plan.read_bytes, Stage.MERGE: plan.write_bytes, Stage.STAGE: plan.write_bytes}
        self.start({stage: totals[stage] for stage in self._stages})
        read, write = size_text(plan.read_bytes), size_text(plan.write_bytes)
        self.say(f"Merging {len(plan.parents)} models by {plan.recipe.method}: {read} to read, {write} to write")
        for note in plan.notes:
            self.say(f"! {note}")

    def skip(self, filename: str, size_bytes: int) -> None:
        """Says that a file was finished in an earlier run."""
        self.say(f"{filename} ({size_text(size_bytes)}) is there already, from an earlier run")
        for stage in self._stages[1:]:
            self.advance(stage, size_bytes)
