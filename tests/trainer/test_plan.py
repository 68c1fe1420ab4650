from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import BudgetError, DataError
from hubmerge.localhub import LocalHub
from hubmerge.merge.recipe import load_recipe
from hubmerge.trainer.data_checks import TokenisedPair
from hubmerge.trainer.plan import as_data, describe, make_plan, notes, with_all_pairs
from hubmerge.trainer.settings import DatasetSource, DpoSettings, LoraShape, Memory, Training
from hubmerge.trainer.state import run_fingerprint
from hubmerge.weights.reference import ModelRef
from tests.checkpoints import push_folder, write_llama
from tests.trainer.tokenizers_made import CHATML, character_tokenizer


def write_model(folder: Path, *, seed: int = 0, template: str | None = CHATML) -> Path:
    write_llama(folder, seed=seed, vocab=300, tokenizer=False)
    character_tokenizer(template).save_pretrained(folder)
    return folder


def write_pairs(path: Path, *, count: int = 30) -> DatasetSource:
    rows = [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad" + "!" * (n % 3)} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DatasetSource(str(path))


@pytest.fixture
def settings(tmp_path: Path) -> DpoSettings:
    return DpoSettings(ModelRef(str(write_model(tmp_path / "model"))), (write_pairs(tmp_path / "pairs.jsonl"),))


def test_plan_decides_what_was_left_open(settings: DpoSettings) -> None:
    plan = make_plan(settings)
    training = plan.settings.training
    assert (plan.settings.memory.quant, training.max_length, training.batch_size) == ("none", 128, 8)
    assert training.grad_accumulation == 1
    assert plan.has_chat
    assert plan.report.tokens[1.0] < 128


def test_plan_is_told_in_a_few_lines(settings: DpoSettings) -> None:
    lines = list(describe(make_plan(settings)))
    assert lines[0] == f"model      {settings.model}"
    assert lines[1] == f"data       {settings.datasets[0].path}"
    assert lines[3] == "GPU        RTX 3090, 24.0 GB (assumed)"
    assert lines[4] == (
        "training   LoRA on bf16 weights, LoRA r=16, adamw_8bit, 128 tokens, 8 x 1 pairs a step, "
        "learning rate 5e-06, beta 0.1"
    )
    assert lines[-1] == "note       bf16 weights fit, so nothing is quantised"
    assert json.dumps(as_data(make_plan(settings)))


def test_changed_chat_template_of_a_folder_is_another_run(settings: DpoSettings, tmp_path: Path) -> None:
    first = run_fingerprint(make_plan(settings), "the same weights")
    assert first == run_fingerprint(make_plan(settings), "the same weights")
    character_tokenizer(CHATML.replace("user", "human") + " ").save_pretrained(tmp_path / "model")
    assert run_fingerprint(make_plan(settings), "the same weights") != first


def test_merge_is_planned_without_being_made(settings: DpoSettings, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", seed=1)
    merged = load_recipe(
        {
            "merge_method": "linear",
            "models": [{"model": str(each), "parameters": {"weight": 1}} for each in (settings.model, other)],
        }
    )
    plan = make_plan(DpoSettings(merged, settings.datasets))
    assert plan.subject.label == f"linear merge of {settings.model} and {other}"
    assert plan.subject.shape == make_plan(settings).subject.shape


def test_model_without_a_template_trains_on_text(settings: DpoSettings, tmp_path: Path) -> None:
    model = ModelRef(str(write_model(tmp_path / "plain", template=None)))
    plan = make_plan(DpoSettings(model, settings.datasets))
    assert not plan.has_chat
    assert isinstance(plan.samples[0].pairs[0]["prompt"], str)


def test_conversations_without_a_template_name_their_data_set(tmp_path: Path) -> None:
    talk = {
        part: [{"role": "user", "content": "a"}, {"role": "assistant", "content": part}]
        for part in ("chosen", "rejected")
    }
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps(talk))
    model = ModelRef(str(write_model(tmp_path / "plain", template=None)))
    with pytest.raises(DataError) as error:
        make_plan(DpoSettings(model, (DatasetSource(str(path)),)))
    assert str(error.value) == (f"{path}: the data are conversations and the model's tokenizer has no chat template")


def test_plan_that_does_not_fit_is_refused(settings: DpoSettings) -> None:
    small = Memory(vram_bytes=2**29)
    with pytest.raises(BudgetError):
        make_plan(DpoSettings(settings.model, settings.datasets, memory=small))


def test_settings_without_effect_are_noted(settings: DpoSettings) -> None:
    with_dropout = DpoSettings(
        settings.model, settings.datasets, lora=LoraShape(dropout=0.05), training=Training(max_length=26)
    )
    found = notes(make_plan(with_dropout))
    assert "TRL switches dropout off in DPO, so lora.dropout has no effect" in found
    assert any("are dropped" in sentence or "lose the end" in sentence for sentence in found)


def test_longest_pair_of_all_decides_the_length_in_the_end(settings: DpoSettings) -> None:
    plan = make_plan(DpoSettings(settings.model, settings.datasets, training=Training(batch_size=1)))
    longer = TokenisedPair(prompt=20, chosen=100, rejected=5, is_prefix=True, ends=True)
    again = with_all_pairs(plan, [longer, TokenisedPair(10, 5, 5, is_prefix=True, ends=True)])
    assert (plan.report.pairs, again.report.pairs) == (30, 2)
    assert again.report.tokens[1.0] == 120
    assert again.settings.training.batch_size == 1


def test_plan_pins_model_and_data_of_the_hub(settings: DpoSettings, hub: LocalHub) -> None:
    sha = push_folder(hub.token, "local/to-tune", settings.model.folder)
    api = HfApi(token=hub.token)
    api.create_repo("local/preferences", repo_type="dataset")
    api.upload_file(
        path_or_fileobj=settings.datasets[0].path,
        path_in_repo="train.jsonl",
        repo_id="local/preferences",
        repo_type="dataset",
    )
    asked = DpoSettings(ModelRef("local/to-tune"), (DatasetSource("local/preferences"),))
    plan = make_plan(asked, token=hub.token)
    assert (plan.subject.label, plan.subject.sha) == (f"local/to-tune@{sha[:7]}", sha)
    assert plan.settings.datasets[0].revision == api.dataset_info("local/preferences").sha
    assert plan.settings.datasets[0].split == "train"
    assert "local/preferences states no licence" in notes(plan)


def test_tokenizer_that_needs_code_of_its_repo_is_refused(settings: DpoSettings) -> None:
    folder = settings.model.folder
    content = json.loads((folder / "tokenizer_config.json").read_text())
    content |= {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=f"the tokenizer of {folder} cannot be loaded: "):
        make_plan(settings)
