from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.errors import RecipeError, SourceError, TrainError
from hubmerge.merge.recipe.model import Recipe
from hubmerge.trainer.settings import DatasetSource, DpoSettings, Loss, Training
from hubmerge.trainer.settings_file import gpu_bytes, load_settings, parse_dataset, parse_model
from hubmerge.weights.reference import ModelRef

WHOLE = """\
dpo:
  model: mlabonne/Monarch-7B@main
  datasets:
    - mlabonne/chatml_dpo_pairs@v1
    - path: mine.jsonl
      weight: 0.5
      columns: {prompt: question}
  result: {push_to: me/tuned, private: true, publish: both}
  loss: {types: [sigmoid, sft], weights: [1, 0.2], beta: 0.2}
  training: {learning_rate: 5e-7, max_length: 1536, epochs: 2}
  lora: {r: 32, targets: [q_proj, v_proj]}
  memory: {vram: 24GB, quant: nf4}
  evaluation: {holdout: 0.1, tasks: truthfulqa}
"""

MERGE = """\
merge_method: linear
models:
  - {model: a/one, parameters: {weight: 1}}
  - {model: a/two, parameters: {weight: 1}}
"""


def test_file_says_every_setting() -> None:
    settings = load_settings(WHOLE)
    assert settings.model == ModelRef("mlabonne/Monarch-7B", "main")
    assert settings.datasets == (
        DatasetSource("mlabonne/chatml_dpo_pairs", revision="v1"),
        DatasetSource("mine.jsonl", weight=0.5, columns={"prompt": "question"}),
    )
    assert (settings.result.push_to, settings.result.private, settings.result.publish) == ("me/tuned", True, "both")
    assert settings.loss == Loss(types=("sigmoid", "sft"), weights=(1.0, 0.2), beta=0.2)
    assert (settings.training.learning_rate, settings.training.max_length, settings.training.epochs) == (5e-7, 1536, 2)
    assert (settings.lora.r, settings.lora.targets) == (32, ("q_proj", "v_proj"))
    assert (settings.memory.vram_bytes, settings.memory.quant) == (24 * 2**30, "nf4")
    assert (settings.evaluation.holdout, settings.evaluation.tasks) == (0.1, ("truthfulqa",))


def test_what_is_not_said_is_the_default() -> None:
    settings = load_settings("dpo:\n  model: a/b\n  datasets: c/d\n")
    assert settings == DpoSettings(ModelRef("a/b"), (DatasetSource("c/d"),))
    assert settings.training == Training(learning_rate=5e-6, optimizer="adamw_8bit")


def test_recipe_stands_in_the_model_s_place_inline_or_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "recipe.yml").write_text(MERGE)
    inline = "dpo:\n  datasets: c/d\n  model:\n" + "".join(f"    {line}\n" for line in MERGE.splitlines())
    named = f"dpo:\n  datasets: c/d\n  model: {tmp_path}/recipe.yml\n"
    first, second = load_settings(inline).model, load_settings(named).model
    assert isinstance(first, Recipe)
    assert isinstance(second, Recipe)
    assert first.method == second.method == "linear"
    assert "datasets" not in first.text
    assert first.slices[0].sources[0].where == "dpo.model.models[0] (line 6)"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("loss:\n    beta: -1", "dpo.loss.beta (line 5): must be a number above 0, not -1"),
        ("loss:\n    bta: 1", "dpo.loss.bta (line 5): unknown key; did you mean beta?"),
        (
            "training: {schedule: cosin}",
            "dpo.training.schedule (line 4): must be one of cosine, linear, constant, constant_with_warmup, not cosin",
        ),
        ("training: {max_steps: 1.5}", "dpo.training.max_steps (line 4): must be a whole number, not 1.5"),
        ("memory: {vram: 24}", "dpo.memory.vram (line 4): '24' is not the memory of a GPU; write it like 24GB"),
        ("result: {private: maybe}", "dpo.result.private (line 4): must be true or false, not `maybe`"),
        (
            "loss: {types: sigmoid, weights: [1, 2]}",
            "dpo.loss (line 4): weights has 2 numbers for the 1 losses of types",
        ),
    ],
)
def test_fault_names_its_path_and_line(lines: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_settings(f"dpo:\n  model: a/b\n  datasets: c/d\n  {lines}\n")
    assert str(error.value) == message


def test_file_without_model_or_data_says_which_key_is_missing() -> None:
    with pytest.raises(RecipeError) as error:
        load_settings("dpo:\n  model: a/b\n")
    assert str(error.value) == "dpo (line 1): `datasets` is missing"
    with pytest.raises(RecipeError) as other:
        load_settings(MERGE)
    assert str(other.value) == "a file for `hubmerge dpo` has one document with one key, `dpo`"


def test_python_takes_the_same_rules() -> None:
    with pytest.raises(TrainError) as error:
        Training(learning_rate=0.0)
    assert str(error.value) == "learning_rate must be a number above 0, not 0.0"
    with pytest.raises(TrainError) as none:
        DpoSettings(ModelRef("a/b"), ())
    assert none.value.hint == "Name one: --dataset ORG/NAME or FILE.jsonl."


def test_model_with_an_adapter_is_sent_to_a_recipe() -> None:
    with pytest.raises(TrainError) as error:
        DpoSettings(parse_model("a/b+c/d"), (DatasetSource("e/f"),))  # type: ignore[arg-type]
    assert str(error.value) == "a/b+c/d is a model with an adapter, which is not trained as it stands"


def test_command_line_names_data_sets_as_models_are_named() -> None:
    assert parse_dataset("org/name@v1") == DatasetSource("org/name", revision="v1")
    assert parse_dataset("org/name") == DatasetSource("org/name")
    assert parse_dataset("odd@name.jsonl") == DatasetSource("odd@name.jsonl")
    with pytest.raises(TrainError, match="`a b` is not a revision"):
        parse_dataset("org/name@a b")
    with pytest.raises(SourceError):
        parse_model("no model")


def test_memory_of_a_card_is_counted_as_it_is_sold() -> None:
    assert gpu_bytes("24GB") == gpu_bytes("24 GiB") == gpu_bytes("24g") == 24 * 2**30
    with pytest.raises(TrainError):
        gpu_bytes("0GB")
