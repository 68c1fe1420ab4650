from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from hubmerge.cli import main
from hubmerge.cli.dpo import _settings, dpo
from hubmerge.cli.dpo_display import DpoDisplay
from hubmerge.merge.recipe import Recipe
from hubmerge.trainer.progress import Step
from tests.trainer.tuning import write_model, write_preferences


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("dpo") / "model", steps=1)


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["dpo", *words])


def given(*words: str) -> dict[str, object]:
    with dpo.make_context("dpo", list(words)) as context:
        return dict(context.params)


def test_plan_is_shown_without_training(model: Path, tmp_path: Path) -> None:
    data = write_preferences(tmp_path / "data.jsonl", 20)
    shown = run(str(model), "--dataset", str(data), "--plan")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith(f"model      {model}\n")
    as_data = json.loads(run(str(model), "--dataset", str(data), "--plan", "--json").stdout)
    assert as_data["quant"] == "none"


def test_tuning_without_data_or_target_is_refused(model: Path, tmp_path: Path) -> None:
    without_data = run(str(model), "--push-to", "a/b")
    assert without_data.exit_code == 1
    assert "Error: preference tuning needs a data set\n" in without_data.output
    data = write_preferences(tmp_path / "data.jsonl", 20)
    without_target = run(str(model), "--dataset", str(data))
    assert "Error: a tuning needs one target\nHint: Name it: --push-to OWNER/NAME or --out DIR.\n" in (
        without_target.output
    )


def test_options_change_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "tune.yml"
    file.write_text(
        "# mine\ndpo:\n  model: a/b\n  datasets: c/d\n  training: {learning_rate: 1e-6, epochs: 2}\n"
        "  result: {push_to: me/x}\n"
    )
    options = given(
        str(file), "--learning-rate", "1e-5", "--vram", "16GB", "--round", "stochastic", "--adapter-only", "--seed", "7"
    )
    settings = _settings(str(file), options)
    assert (settings.training.learning_rate, settings.training.epochs, settings.training.seed) == (1e-5, 2, 7)
    assert settings.memory.vram_bytes == 16 * 2**30
    assert (settings.result.round, settings.result.publish, settings.result.push_to) == (
        "stochastic",
        "adapter",
        "me/x",
    )


@pytest.mark.parametrize("is_terminal", [False, True])
def test_memory_is_shown_beside_its_budget(is_terminal: bool) -> None:
    shown = StringIO()
    console = Console(file=shown, width=160, force_terminal=is_terminal, color_system=None)
    numbers = {"loss": 0.5, "margin": 0.2, "accuracy": 0.75, "tokens_per_second": 1234.0}
    with DpoDisplay(console) as display:
        display.step(Step(number=3, total=3, **numbers, memory_bytes=6 * 2**30, budget_bytes=7 * 2**30))
    assert "loss 0.500, margin 0.2, accuracy 75%, 1,234 tokens/s, 6.0 of 7.0 GB" in shown.getvalue()


def test_unknown_key_of_a_recipe_is_forgiven_on_request(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yml"
    recipe.write_text("merge_method: passthrough\nmodels: [{model: a/b}]\nfancy: 1\n")
    file = tmp_path / "tune.yml"
    file.write_text(f"dpo:\n  model: {recipe}\n  datasets: c/d\n")
    for model in (recipe, file):
        words = (str(model), "--dataset", "c/d", "--out", "somewhere")
        assert "fancy (line 3): unknown key" in run(*words).output
        settings = _settings(str(model), given(*words, "--lenient"))
        assert isinstance(settings.model, Recipe)
        assert settings.model.warnings == ("fancy (line 3): unknown key (ignored)",)


def test_settings_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "tune.yml"
    file.write_text("\ufeffdpo:\n  model: a/b\n  datasets: c/d\n", encoding="utf-8")
    assert _settings(str(file), given(str(file))).datasets[0].path == "c/d"


def test_recipe_is_taken_for_the_model(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yml"
    file.write_text("merge_method: passthrough\nmodels: [{model: a/b}]\n")
    options = given(str(file), "--dataset", "c/d", "--out", "somewhere")
    settings = _settings(str(file), options)
    assert getattr(settings.model, "method", None) == "passthrough"
    assert settings.datasets[0].path == "c/d"
