"""The whole path: a merge recipe is tuned in NF4, folded in, proven, pushed, and loaded back."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from safetensors.torch import save_file
from transformers import AutoTokenizer

from hubmerge.errors import ProofError, PublishError, TrainError
from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_to_folder, open_merge
from hubmerge.merge.recipe import load_recipe
from hubmerge.republish.run import republish
from hubmerge.trainer.data import load_preferences
from hubmerge.trainer.data_checks import Encoded, encode
from hubmerge.trainer.dataset_source import open_dataset
from hubmerge.trainer.fold import tuned_recipe
from hubmerge.trainer.load import Weights, load_model
from hubmerge.trainer.progress import DpoStage
from hubmerge.trainer.proof import check as check_proof
from hubmerge.trainer.proof import measure, score
from hubmerge.trainer.run import Tuned, tune
from hubmerge.trainer.settings import DpoSettings, Evaluation, Result
from hubmerge.trainer.state import RunFolder
from hubmerge.trainer.survival import survival
from hubmerge.trainer.train import ADAPTER_FILES, last_checkpoint
from hubmerge.verify.report import Verdict
from hubmerge.verify.run import verify_merge
from hubmerge.weights.reference import ModelRef
from tests.checkpoints import push_folder
from tests.merge.merging import hashes
from tests.trainer.tuning import Heard, load_file, options_in, preferences, settings_for, write_model, write_preferences
from tests.verify.merges import FULL, check, differing, edit_lock, full_report

DATA = "local/letters"
TARGET = "local/tuned"
HELD_OUT = Evaluation(holdout=0.3)


@dataclass(frozen=True)
class Whole:
    """A run and all that it left."""

    tuned: Tuned
    heard: Heard
    work: Path
    pairs: list[Encoded]

    @property
    def root(self) -> Path:
        return next(path for path in self.work.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def models(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that can do something, and one near it; both are on the Hub as local/first and local/second."""
    folder = tmp_path_factory.mktemp("models")
    first = write_model(folder / "first")
    second = folder / "second"
    second.mkdir()
    for path in first.iterdir():
        (second / path.name).write_bytes(path.read_bytes())
    torch.manual_seed(0)
    for path in second.glob("*.safetensors"):
        noisy = {name: tensor * (1 + 0.02 * torch.randn_like(tensor)) for name, tensor in load_file(path).items()}
        save_file(noisy, path, metadata={"format": "pt"})
    push_folder(hub.token, "local/first", first)
    push_folder(hub.token, "local/second", second)
    return first, second


@pytest.fixture(scope="module")
def whole(hub: LocalHub, models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The merge of both, tuned and pushed."""
    work = tmp_path_factory.mktemp("work")
    api = HfApi(token=hub.token)
    api.create_repo(DATA, repo_type="dataset", exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in preferences(120)).encode()
    card = b"---\nlicense: cc-by-4.0\n---\n"
    for name, data in {"data.jsonl": content, "README.md": card}.items():
        api.upload_file(path_or_fileobj=data, path_in_repo=name, repo_id=DATA, repo_type="dataset")
    entries = [{"model": f"local/{name}", "parameters": {"weight": 0.5}} for name in ("first", "second")]
    recipe = load_recipe({"merge_method": "linear", "models": entries, "dtype": "bfloat16"})
    settings = settings_for(recipe, DATA, result=Result(push_to=TARGET, publish="both"))
    heard = Heard()
    tuned = tune(settings, replace(options_in(work), target_token=hub.token), heard)
    tokenizer = AutoTokenizer.from_pretrained(models[0])
    held_out = load_preferences([open_dataset(settings.datasets[0])], HELD_OUT, chat=True).held_out
    return Whole(tuned, heard, work, [encode(pair, tokenizer, max_length=32) for pair in held_out])


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a JSON object."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def metrics_of(model: Any, base: Any, pairs: list[Encoded]) -> Any:
    return measure(score(model, pairs), score(base, pairs), pairs, beta=0.1)


def test_artefact_loaded_from_the_hub_keeps_what_was_trained(whole: Whole) -> None:
    base = load_model(Weights(str(whole.root / "merged")), quant="none", precision="bf16")
    loaded = load_model(Weights(TARGET, whole.tuned.published.commit), quant="none", precision="bf16")
    found = metrics_of(loaded, base, whole.pairs)
    proof = whole.tuned.story.proof
    assert proof is not None
    assert found.margin == pytest.approx(proof.result.margin)
    assert found.margin > 0.9 * proof.policy.margin > 0.3
    assert proof.policy.is_significant


def weaker_adapter(adapter: Path, folder: Path, factor: float) -> Path:
    """Returns a folder with an adapter that changes the weights by so much less."""
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    factors = load_file(adapter / "adapter_model.safetensors")
    weaker = {name: tensor * (factor if "lora_B" in name else 1) for name, tensor in factors.items()}
    save_file(weaker, folder / "adapter_model.safetensors")
    return folder


def test_adding_the_adapter_to_the_quantised_weights_loses_what_this_way_keeps(whole: Whole, tmp_path: Path) -> None:
    base, adapter = Weights(str(whole.root / "merged")), weaker_adapter(whole.root / "adapter", tmp_path / "weak", 0.1)
    policy = load_model(base, quant="nf4", precision="bf16", adapter=adapter)
    with policy.disable_adapter():
        before = score(policy, whole.pairs)
    wanted = measure(score(policy, whole.pairs), before, whole.pairs, beta=0.1)
    quantised = measure(score(policy.merge_and_unload(), whole.pairs), before, whole.pairs, beta=0.1)
    untuned = load_recipe({"merge_method": "passthrough", "models": [{"model": base.path}]})
    merge_to_folder(tuned_recipe(untuned, adapter, rounding="nearest"), tmp_path / "folded")
    folded = load_model(Weights(str(tmp_path / "folded")), quant="none", precision="bf16")
    kept = metrics_of(folded, load_model(base, quant="none", precision="bf16"), whole.pairs)
    assert kept.margin > 0.9 * wanted.margin > 0
    assert quantised.margin < 0.6 * wanted.margin


def test_repo_has_a_card_that_tells_of_the_tuning(whole: Whole) -> None:
    card = Path(hf_hub_download(TARGET, "README.md")).read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["base_model"] == ["local/first", "local/second"]
    assert metadata["base_model_relation"] == "finetune"
    assert {"dpo", "trl", "merge", "hubmerge"} <= set(metadata["tags"])
    assert metadata["datasets"] == [DATA]
    measured = {each["type"]: each["value"] for each in metadata["model-index"][0]["results"][0]["metrics"]}
    assert measured["reward_accuracy"] == 1.0
    assert "## Preference tuning" in card
    assert "cc-by-4.0" in card
    assert "lora: ./adapter" in card
    assert str(whole.work) not in card


def test_repo_has_the_adapter_and_the_lock_file_knows_it(whole: Whole) -> None:
    files = set(HfApi().list_repo_files(TARGET))
    assert {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "dpo.json", "dpo-training.png"} <= files
    assert not any("training_args" in name or name.endswith(".bin") for name in files)
    lock = json.loads(Path(hf_hub_download(TARGET, "hubmerge.lock.json")).read_text())
    adapter = Path(hf_hub_download(TARGET, "adapter/adapter_model.safetensors"))
    assert hashes(adapter.parent, adapter.name)[adapter.name] == lock["adapters"][0]["sha256"]
    results = json.loads(Path(hf_hub_download(TARGET, "dpo.json")).read_text())
    assert results["delta_survival"]["overall"] == pytest.approx(1, abs=0.05)
    assert results["proof"]["kept"] > 0.9


def test_published_recipe_makes_the_same_bytes_again(whole: Whole, tmp_path: Path) -> None:
    text = Path(hf_hub_download(TARGET, "mergekit_config.yml")).read_text()
    recipe = load_recipe(text.replace("./adapter", str(whole.root / "adapter")))
    merge_to_folder(recipe, tmp_path / "again")
    again = hashes(tmp_path / "again", "*.safetensors")
    published = {name: hf_hub_download(TARGET, name) for name in again}
    assert again == {name: hashes(Path(path).parent, name)[name] for name, path in published.items()}


def test_same_command_does_not_train_again(hub: LocalHub, whole: Whole) -> None:
    settings = replace(whole.tuned.story.settings, result=Result(push_to=TARGET, publish="both"))
    heard = Heard()
    again = tune(settings, replace(options_in(whole.work), target_token=hub.token), heard)
    assert not heard.steps
    assert again.story.proof == whole.tuned.story.proof


def test_stages_are_told_in_order(whole: Whole) -> None:
    assert whole.heard.stages == list(DpoStage)
    assert [step.number for step in whole.heard.steps] == list(range(1, 13))


def test_survival_in_bf16_is_worse_for_a_smaller_change_and_random_rounding_restores_it(
    whole: Whole, tmp_path: Path
) -> None:
    small = weaker_adapter(whole.root / "adapter", tmp_path / "small", 0.002)
    untuned = load_recipe({"merge_method": "passthrough", "models": [{"model": "local/first"}]})
    left = {rounding: _survival(untuned, small, rounding, tmp_path) for rounding in ("nearest", "stochastic")}
    assert left["nearest"] < 0.5
    assert left["stochastic"] == pytest.approx(1, abs=0.2)


def _survival(untuned: Any, adapter: Path, rounding: str, folder: Path) -> float:
    recipe = tuned_recipe(untuned, adapter, rounding=rounding)
    merge_to_folder(recipe, folder / rounding)
    with open_merge(recipe) as merge:
        return survival(merge, folder / rounding).overall


class Stopping(Heard):
    """A person who presses Ctrl-C after a step."""

    def step(self, step: Any) -> None:
        """Stops at the third."""
        super().step(step)
        if step.number == 3:
            raise KeyboardInterrupt


@pytest.fixture
def quick(models: tuple[Path, Path], tmp_path: Path) -> DpoSettings:
    """A tuning of four steps, the last of which is of a second epoch; only its adapter is wanted."""
    data = write_preferences(tmp_path / "data.jsonl", 14)
    result = Result(folder=str(tmp_path / "out"), publish="adapter")
    settings = settings_for(models[0], data, result=result, evaluation=Evaluation(holdout=0.1))
    return replace(settings, training=replace(settings.training, max_steps=4, save_steps=2))


def test_interrupted_training_goes_on_to_the_same_bits(quick: DpoSettings, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(quick, options_in(tmp_path / "stopped"), Stopping())
    heard = Heard()
    resumed = tune(quick, options_in(tmp_path / "stopped"), heard)
    elsewhere = replace(quick, result=replace(quick.result, folder=str(tmp_path / "other")))
    straight = tune(elsewhere, options_in(tmp_path / "straight"))
    assert "Going on from step 2" in heard.sentences
    assert [step.number for step in heard.steps] == [3, 4]
    assert hashes(tmp_path / "out", "*.safetensors") == hashes(tmp_path / "other", "*.safetensors") != {}
    assert resumed.story.trained.history[:2] == straight.story.trained.history[:2]
    assert (resumed.story.trained.pairs, resumed.story.trained.steps) == (13, 4)


def test_checkpoint_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    for step in (2, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "adapter_model.safetensors"):
            (folder / name).touch()
        (folder / "adapter_config.json").touch()
        (folder / "trainer_state.json").write_text("{}" if step == 2 else '{"global_st')
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_result_that_lost_the_margin_is_not_published(whole: Whole) -> None:
    proof = whole.tuned.story.proof
    assert proof is not None
    worse = replace(proof, result=replace(proof.result, margin=0.5 * proof.policy.margin))
    with pytest.raises(ProofError) as error:
        check_proof(worse)
    assert str(error.value).startswith("the folded model keeps 50% of the margin that was trained")
    check_proof(replace(worse, policy=replace(proof.policy, margin_error=10.0)))
    with pytest.raises(ProofError) as no_number:
        check_proof(replace(proof, result=replace(proof.result, margin=math.nan)))
    assert str(no_number.value) == "the margin of the folded model on the held-out pairs is nan"


def test_adapter_alone_is_published_for_its_base(hub: LocalHub, quick: DpoSettings, tmp_path: Path) -> None:
    settings = replace(quick, model=ModelRef("local/first"), result=Result(push_to="local/alone", publish="adapter"))
    tune(settings, replace(options_in(tmp_path), target_token=hub.token))
    card = Path(hf_hub_download("local/alone", "README.md")).read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert (metadata["base_model"], metadata["base_model_relation"]) == ("local/first", "adapter")
    assert metadata["library_name"] == "peft"
    config = json.loads(Path(hf_hub_download("local/alone", "adapter_config.json")).read_text())
    assert config["base_model_name_or_path"] == "local/first"
    assert "config.json" not in HfApi().list_repo_files("local/alone")


def test_tuned_merge_is_verified_bit_for_bit(whole: Whole) -> None:
    report = verify_merge(f"{TARGET}@{whole.tuned.published.commit}", FULL)
    assert report.verdict is Verdict.PROVEN, report.checks
    assert report.assumptions == ("The adapter in ./adapter came about as the card says: no training is repeated.",)
    assert check(report, "adapter").detail == "SHA-256 of adapter/adapter_model.safetensors is the lock file's"


def test_changed_adapter_is_found(whole: Whole, tmp_path: Path) -> None:
    folder = Path(snapshot_download(TARGET, revision=whole.tuned.published.commit, local_dir=tmp_path / "copy"))
    weaker_adapter(whole.root / "adapter", tmp_path / "weaker", 0.5)
    shutil.copyfile(tmp_path / "weaker" / ADAPTER_FILES[0], folder / "adapter" / ADAPTER_FILES[0])
    assert differing(full_report(folder)) == ["adapter", "files of the parents", "weights"]


def test_merge_whose_adapter_is_not_published_cannot_be_verified(whole: Whole, tmp_path: Path) -> None:
    folder = Path(snapshot_download(TARGET, revision=whole.tuned.published.commit, local_dir=tmp_path / "copy"))
    edit_lock(folder, lambda lock: lock["adapters"][0].update(path=None))
    report = full_report(folder)
    assert report.verdict is Verdict.UNCHECKED
    assert check(report, "adapter").detail == "the adapter that was trained is not published beside the weights"
    assert check(report, "weights").detail.startswith(
        f"{folder} has an adapter folded in that is not published with it"
    )


def test_fp16_model_without_padding_token_is_tuned_and_verified(models: tuple[Path, Path], tmp_path: Path) -> None:
    model = shutil.copytree(models[0], tmp_path / "fp16")
    weights = {name: tensor.half() for name, tensor in load_file(model / "model.safetensors").items()}
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    edit_json(model / "tokenizer_config.json", lambda config: config.pop("pad_token"))
    edit_json(model / "config.json", lambda config: config.update(dtype="float16"))
    data = write_preferences(tmp_path / "data.jsonl", 14)
    result = Result(folder=str(tmp_path / "out"), round="stochastic")
    settings = settings_for(model, data, result=result, evaluation=Evaluation(holdout=0.1))
    heard = Heard()
    tune(replace(settings, training=replace(settings.training, max_steps=3)), options_in(tmp_path / "work"), heard)
    assert "! The tokenizer has no padding token, so </s> takes its place" in heard.sentences
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float16}
    report = full_report(tmp_path / "out")
    assert report.verdict is Verdict.PROVEN, report.checks


def test_adapter_on_quantised_weights_names_the_model_and_says_that_nobody_can_verify_it(
    hub: LocalHub, whole: Whole
) -> None:
    result = Result(push_to="local/tuned-nf4", fold_base="nf4")
    settings = replace(whole.tuned.story.settings, result=result)
    heard = Heard()
    found = tune(settings, replace(options_in(whole.work), target_token=hub.token), heard)
    assert not heard.steps
    assert found.story.proof.result.margin == pytest.approx(found.story.proof.policy.margin, rel=0.1)
    files = {name: hf_hub_download("local/tuned-nf4", name) for name in ("mergekit_config.yml", "config.json")}
    assert str(whole.work) not in Path(files["mergekit_config.yml"]).read_text()
    assert json.loads(Path(files["config.json"]).read_text())["use_cache"]
    report = verify_merge("local/tuned-nf4")
    assert report.verdict is Verdict.UNCHECKED
    assert check(report, "weights").detail.startswith("the adapter was added to what NF4 left of the weights")


def test_second_run_at_the_same_time_is_refused(hub: LocalHub, whole: Whole) -> None:
    with RunFolder(whole.root).locked(), pytest.raises(TrainError) as error:
        tune(whole.tuned.story.settings, replace(options_in(whole.work), target_token=hub.token))
    assert str(error.value) == f"another run of this tuning works in {whole.root}"


def test_tuned_merge_is_not_merged_again_without_its_tuning(whole: Whole) -> None:
    with pytest.raises(PublishError) as error:
        republish(TARGET)
    assert str(error.value) == (
        f"{TARGET} was tuned to preferences on its parents as they were, and a merge alone would undo that"
    )
