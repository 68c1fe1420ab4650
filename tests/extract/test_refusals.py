"""What is refused, in one sentence each: before a weight is read where headers can show it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.errors import HubmergeError, MergeError, PlanError, PublishError, SourceError
from hubmerge.extract.parts import Choice
from tests.checkpoints import read_tensors, write_changed, write_llama
from tests.extract.models import extracted

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("refused") / "base", seed=1, dtype=torch.float32)


def refusal(finetuned: Path | str, base: Path, out: Path, kind: type[HubmergeError], **options: Any) -> str:
    with pytest.raises(kind) as caught:
        extracted(Path(finetuned), base, out, **options)
    assert not out.exists(), "nothing is left of what failed"
    return str(caught.value)


def test_a_model_and_itself(base: Path, tmp_path: Path) -> None:
    message = refusal(base, base, tmp_path / "out", PlanError)
    assert message == f"{base} is both the fine-tuned model and its base; there is nothing to extract"


def test_two_copies_of_a_model(base: Path, tmp_path: Path) -> None:
    copy = write_changed(tmp_path / "copy", base, {})
    message = refusal(copy, base, tmp_path / "out", MergeError)
    assert message == f"{copy} and {base} have the same weights; there is nothing to extract"


def test_models_that_differ_in_their_norms_only(base: Path, tmp_path: Path) -> None:
    changed = write_changed(tmp_path / "changed", base, {"model.norm.weight": torch.ones(16)})
    message = refusal(changed, base, tmp_path / "out", MergeError)
    assert message == f"{changed} and {base} differ in nothing that a LoRA can express"


def test_models_of_other_sizes(base: Path, tmp_path: Path) -> None:
    wide = write_llama(tmp_path / "wide", seed=2, hidden=32, dtype=torch.float32)
    message = refusal(wide, base, tmp_path / "out", PlanError)
    first, *problems = message.split("\n")
    assert first == "12 things keep the two models from being subtracted:"
    assert (
        f"  - model.layers.*.self_attn.q_proj.weight (2 tensors): it is 32x32 in {wide} and 16x16 in {base}" in problems
    )


def test_models_with_other_numbers_of_layers(base: Path, tmp_path: Path) -> None:
    deep = write_llama(tmp_path / "deep", seed=2, layers=3, dtype=torch.float32)
    with pytest.raises(PlanError) as caught:
        extracted(deep, base, tmp_path / "out")
    assert caught.value.problems[0] == f"model.layers.*.mlp.down_proj.weight: {base} lacks it"
    hint = "Name the very model that it was fine-tuned from, or leave modules out with --exclude."
    assert caught.value.hint == hint


def test_a_quantised_model(base: Path, tmp_path: Path) -> None:
    quantised = write_changed(tmp_path / "quantised", base, {})
    config = json.loads((quantised / "config.json").read_text())
    (quantised / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    message = refusal(quantised, base, tmp_path / "out", SourceError)
    assert message == f"{quantised} is quantised: config.json has a quantization_config (gptq)"


def test_an_adapter_in_the_place_of_a_model(base: Path, tmp_path: Path) -> None:
    message = refusal(f"{base}+{tmp_path}/lora", base, tmp_path / "out", SourceError)
    assert message == f"{base}+{tmp_path}/lora names an adapter, and the difference is that of two models"


def test_a_filter_that_is_no_regular_expression(base: Path, tmp_path: Path) -> None:
    other = write_llama(tmp_path / "other", seed=2, dtype=torch.float32)
    message = refusal(other, base, tmp_path / "out", PlanError, choice=Choice(include=("q(",)))
    assert message == (
        "'q(' is neither a role (embed, head, norm, layer, other) nor a regular expression: "
        "missing ), unterminated subpattern at position 1"
    )


def test_filters_that_leave_nothing(base: Path, tmp_path: Path) -> None:
    other = write_llama(tmp_path / "other", seed=2, dtype=torch.float32)
    message = refusal(other, base, tmp_path / "out", PlanError, choice=Choice(include=("query",)))
    assert message == f"{other} has no weight that could become a LoRA under these options"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(base: Path, tmp_path: Path, value: float) -> None:
    weight = read_tensors(base)[Q_PROJ]
    weight[3, 3] = value
    broken = write_changed(tmp_path / "broken", base, {Q_PROJ: weight})
    message = refusal(broken, base, tmp_path / "out", MergeError)
    assert message == f"{Q_PROJ}: the two models differ by numbers that are not finite"


def test_values_beyond_the_dtype_of_the_adapter(base: Path, tmp_path: Path) -> None:
    far = write_changed(tmp_path / "far", base, {Q_PROJ: read_tensors(base)[Q_PROJ] + torch.eye(16) * 1e12})
    message = refusal(far, base, tmp_path / "out", MergeError, dtype="F16")
    assert message == f"{Q_PROJ}: its values do not fit the adapter's dtype"


def test_a_folder_that_is_not_empty(base: Path, tmp_path: Path) -> None:
    other = write_llama(tmp_path / "other", seed=2, dtype=torch.float32)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("keep")
    with pytest.raises(PublishError) as caught:
        extracted(other, base, tmp_path / "out")
    assert str(caught.value) == f"{tmp_path}/out is not empty (it holds mine.txt)"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
