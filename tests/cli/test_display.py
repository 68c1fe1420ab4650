from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hubmerge.card.facts import LicenceDecision, Outcome
from hubmerge.cli import display
from hubmerge.cli.display import MergeDisplay, plan_view, size_text
from hubmerge.merge.pipeline import plan_recipe
from hubmerge.merge.plan import Plan
from hubmerge.merge.progress import Stage
from tests.checkpoints import write_tensors
from tests.merge.recipes import whole

LICENCE = LicenceDecision(license=None, outcome=Outcome.CONSENT, reasons=("Nobody said.",), notices=())


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    model = write_tensors(tmp_path / "[bold]model", {f"part_{i}.weight": torch.ones(2) for i in range(6)})
    return plan_recipe({**whole("passthrough", model), "density": 1})


def shown(plan: Plan) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(plan_view(plan, memory_bytes=3 * 10**8, licence=LICENCE))
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999_600, "1 MB"),
        (1_000, "1 kB"),
        (537_000_000, "537 MB"),
        (14.5e9, "14.5 GB"),
        (2e12, "2 TB"),
    ],
)
def test_sizes_are_in_powers_of_a_thousand(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text


def test_a_plan_shows_parents_groups_files_cost_licence_and_notes(plan: Plan) -> None:
    text = shown(plan)
    assert text.startswith("Passthrough: One model's tensors unchanged, or multiplied by a number.")
    assert "reads 48 B of 48 B · writes " in text
    assert "needs at most" in text
    assert "about 300 MB of memory" in text
    assert "licence: none can be derived; publishing needs --license and --license-reason\n  - Nobody said." in text
    assert "! density: has no effect here; it belongs under parameters" in text
    assert "… and 2 more" in text


def test_names_with_brackets_are_shown_as_they_are(plan: Plan) -> None:
    assert "/[bold]model" in shown(plan)


def test_without_a_terminal_there_is_a_line_now_and_then(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "SHOW_SECONDS", 0.0)
    monkeypatch.setattr(display, "PLAIN_SECONDS", 0.0)
    console = Console(file=io.StringIO(), width=200)
    with MergeDisplay(console, pushes=False) as shower:
        shower.begin(plan)
        shower.advance(Stage.READ, 20)
        shower.advance(Stage.STAGE, 1)
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("Merging 1 models by passthrough: 48 B to read, ")
    assert lines[-1].startswith("read 20 B of 48 B, merged 0 B of ")


def test_on_a_terminal_there_is_one_display_with_a_bar_for_each_stage(plan: Plan) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with MergeDisplay(console, pushes=True) as shower:
        shower.begin(plan)
        shower.skip("model.safetensors", plan.write_bytes)
    text = console.file.getvalue()
    assert all(word in text for word in ("read", "merged", "uploaded", "is there already, from an earlier run"))


def test_quiet_says_nothing(plan: Plan) -> None:
    console = Console(file=io.StringIO(), quiet=True)
    with MergeDisplay(console, pushes=True) as shower:
        shower.begin(plan)
        shower.advance(Stage.MERGE, 5)
    assert console.file.getvalue() == ""
