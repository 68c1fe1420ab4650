"""What of the benchmark on a GPU needs none: its cases, its predictions and its table."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from hubmerge.trainer.budget import GIB
from scripts import bench_dpo
from scripts.bench_dpo import CASES, OVER_BUDGET_TOKENS, Case, fits, predicted, table, tokens_of
from tests.checkpoints import write_llama


@pytest.fixture
def measured() -> dict[str, Any]:
    sizes = {"predicted_tensors": 6.3, "predicted_total": 6.9, "allocated_peak": 6.2, "reserved_peak": 6.5}
    peaks = {name: int(size * GIB) for name, size in {**sizes, "device_peak": 7.0}.items()}
    return {"quant": "nf4", "tokens": 2048, "plain": False, "finished": True, "tokens_per_second": 1234.5, **peaks}


def shown(*results: dict[str, Any]) -> str:
    target = StringIO()
    Console(file=target, width=160, color_system=None).print(table(list(results), "NVIDIA H200", 24))
    return target.getvalue()


def test_predicted_and_measured_stand_side_by_side(measured: dict[str, Any]) -> None:
    text = shown(measured)
    assert "NVIDIA H200, capped to 24 GB" in text
    cells = [cell.strip() for cell in text.splitlines()[-2].strip("│").split("│")]
    assert cells == ["nf4", "2,048", "hubmerge", "6.30", "6.20", "+1.6%", "6.50", "6.90", "7.00", "1,234"]


def test_case_that_ran_out_of_memory_has_no_numbers_of_its_own(measured: dict[str, Any]) -> None:
    sizes = {name: measured[name] for name in ("device_peak", "predicted_tensors", "predicted_total")}
    failed = {"quant": "nf4", "tokens": OVER_BUDGET_TOKENS, "plain": True, "finished": False, **sizes}
    cells = [cell.strip() for cell in shown(failed).splitlines()[-2].strip("│").split("│")]
    assert cells == ["nf4", "24,000", "plain TRL", "6.30", "failed", "", "", "6.90", "7.00", ""]


def test_pairs_have_unequal_answers_of_the_length_that_is_measured() -> None:
    assert tokens_of(Case("nf4", 1024)) == 1024 + 768


def test_case_is_predicted_from_the_headers_of_the_model(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model", seed=0)
    short, long = (predicted(Case("nf4", tokens), model) for tokens in (128, 256))
    assert 0 < short["predicted_tensors"] < short["predicted_total"] < long["predicted_total"]
    assert fits(short, 24)
    assert not fits({"predicted_total": 24 * GIB}, 24)


def test_one_case_is_over_the_budget_on_purpose() -> None:
    assert [case.tokens for case in CASES if case.tokens >= OVER_BUDGET_TOKENS] == [OVER_BUDGET_TOKENS]


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench_dpo.py", "--model-dir", str(tmp_path / "model")])
    assert bench_dpo.main() == 0
    assert capsys.readouterr().out.startswith("There is no CUDA GPU here, so nothing was measured;")
    assert not (tmp_path / "model").exists()
