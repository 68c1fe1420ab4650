"""What cannot be tuned is refused in one sentence, before anything is downloaded or trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.errors import DataError, HubmergeError, PlanError, PublishError, SourceError, TrainError
from hubmerge.localhub import LocalHub
from hubmerge.merge.recipe import load_recipe
from hubmerge.trainer.gpu import check_machine
from hubmerge.trainer.load import check_report
from hubmerge.trainer.plan import make_plan
from hubmerge.trainer.run import tune
from hubmerge.trainer.settings import DpoSettings, Evaluation, Result
from hubmerge.trainer.subject import check_vocabulary
from hubmerge.weights.reference import ModelRef
from tests.adapters import write_adapter
from tests.checkpoints import push_folder, write_llama
from tests.trainer.test_budget import MISTRAL_7B
from tests.trainer.tuning import options_in, settings_for, write_model, write_preferences


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("refused") / "model", steps=1)


@pytest.fixture
def settings(model: Path, tmp_path: Path) -> DpoSettings:
    data = write_preferences(tmp_path / "data.jsonl", 8)
    return settings_for(model, data, result=Result(folder=str(tmp_path / "out")))


def refusal(settings: DpoSettings, tmp_path: Path, kind: type[HubmergeError]) -> tuple[str, str | None]:
    """Returns what is said; nothing is left in the folder of runs."""
    with pytest.raises(kind) as error:
        tune(settings, options_in(tmp_path / "work"))
    assert not (tmp_path / "work").exists()
    return str(error.value), error.value.hint


def test_adapter_alone_of_a_folder_is_not_pushed(settings: DpoSettings, tmp_path: Path) -> None:
    alone = replace(settings, result=Result(push_to="local/alone", publish="adapter"))
    said, _ = refusal(alone, tmp_path, TrainError)
    assert said == "an adapter alone is of use only on a base that is on the Hub, and this one is not"


def test_model_is_not_replaced_by_what_is_made_of_it(settings: DpoSettings, tmp_path: Path) -> None:
    in_place = replace(settings, model=ModelRef("local/itself"), result=Result(push_to="local/itself"))
    assert refusal(in_place, tmp_path, TrainError) == (
        "local/itself is the model that is tuned, whose weights would be replaced",
        "Name another repo, or keep the model as it is: --revision BRANCH or --create-pr.",
    )


def test_two_targets_are_refused(settings: DpoSettings, tmp_path: Path) -> None:
    both = replace(settings, result=replace(settings.result, push_to="local/both"))
    assert refusal(both, tmp_path, TrainError) == (
        f"a tuning has one target, and two are named: local/both and the folder {tmp_path}/out",
        "Leave one of them out.",
    )


def test_pull_request_to_a_branch_is_refused(settings: DpoSettings, tmp_path: Path) -> None:
    result = Result(push_to="local/tuned", revision="other", create_pr=True)
    assert refusal(replace(settings, result=result), tmp_path, TrainError) == (
        "a pull request goes to main",
        "Leave out the branch other.",
    )


def test_folder_that_is_not_empty_is_refused_before_the_training(settings: DpoSettings, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    said, _ = refusal(settings, tmp_path, PublishError)
    assert said == f"{tmp_path}/out is not empty (it holds mine.txt)"


def test_repo_that_the_token_may_not_write_to_is_refused_before_the_training(
    hub: LocalHub, settings: DpoSettings, tmp_path: Path
) -> None:
    elsewhere = replace(settings, result=Result(push_to="somebody/else"))
    with pytest.raises(PublishError) as error:
        tune(elsewhere, replace(options_in(tmp_path / "work"), target_token=hub.token))
    assert str(error.value).startswith("the token may not write to somebody/else")


def test_benchmarks_without_their_library_are_refused(settings: DpoSettings, tmp_path: Path) -> None:
    assert refusal(replace(settings, evaluation=Evaluation(tasks=("gsm8k",))), tmp_path, TrainError) == (
        "evaluating on gsm8k needs lm-evaluation-harness",
        "Install it: pip install 'hubmerge[eval]', or leave out --eval.",
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [("wandbe", "a training cannot report to wandbe"), ("comet_ml", "reporting to comet_ml needs its package")],
)
def test_reports_that_nobody_takes_are_refused(name: str, said: str) -> None:
    with pytest.raises(TrainError) as error:
        check_report(name)
    assert str(error.value) == said


def test_large_model_without_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainError) as error:
        check_machine(MISTRAL_7B, "bf16")
    assert str(error.value) == "there is no GPU with CUDA here, and the model has 7.2 billion parameters"
    assert error.value.hint == "Run it on a machine with one; --plan says how large it has to be."


def test_fp16_without_gpu_is_refused(settings: DpoSettings, tmp_path: Path) -> None:
    in_fp16 = replace(settings, training=replace(settings.training, precision="fp16"))
    assert refusal(in_fp16, tmp_path, TrainError)[0] == "training in fp16 needs a GPU with CUDA"


def test_several_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainError) as error:
        check_machine(MISTRAL_7B, "bf16")
    assert str(error.value) == "2 GPUs are visible, and a tuning runs on one"


def test_tokenizer_with_more_tokens_than_embeddings_is_refused() -> None:
    tokenizer: Any = range(40_000)
    with pytest.raises(DataError) as error:
        check_vocabulary(MISTRAL_7B, tokenizer)
    assert str(error.value) == "the tokenizer has 40,000 tokens and the model embeddings for 32,000"


def test_adapter_in_place_of_a_model_is_refused(settings: DpoSettings, model: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", model, r=2, target_modules=["q_proj"])
    said, hint = refusal(replace(settings, model=ModelRef(str(adapter))), tmp_path, SourceError)
    assert said == f"{adapter} is a LoRA adapter, not a model"
    assert hint is not None


def test_adapter_for_another_base_is_refused(settings: DpoSettings, model: Path, tmp_path: Path) -> None:
    other = write_llama(tmp_path / "other", seed=0)
    adapter = write_adapter(tmp_path / "adapter", other, r=2, target_modules=["q_proj"])
    recipe = load_recipe({"merge_method": "passthrough", "models": [{"model": str(model)}], "lora": str(adapter)})
    said, _ = refusal(replace(settings, model=recipe), tmp_path, PlanError)
    assert said.endswith("it is 2x16 and 16x2, which makes no delta of 64x64")


def test_model_of_the_hub_without_tokenizer_is_refused(
    hub: LocalHub, settings: DpoSettings, model: Path, tmp_path: Path
) -> None:
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "bare").mkdir(exist_ok=True)
        (tmp_path / "bare" / name).write_bytes((model / name).read_bytes())
    push_folder(hub.token, "local/bare", tmp_path / "bare")
    with pytest.raises(DataError) as error:
        make_plan(replace(settings, model=ModelRef("local/bare")))
    assert str(error.value).startswith("the tokenizer of local/bare@")
