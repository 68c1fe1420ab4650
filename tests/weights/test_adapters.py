"""Adapters in folders: what counts as one, and what is refused before a merge is planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.errors import SourceError
from hubmerge.weights.checkpoint import open_adapter, open_checkpoints, parent_checkpoints
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.unsupported import DEQUANTIZE
from tests.weights.weight_files import ADAPTER, write_adapter_files, write_checkpoint


def refusal(folder: Path) -> tuple[str, str | None]:
    with pytest.raises(SourceError) as caught:
        open_adapter(ModelRef(str(folder)))
    return str(caught.value).removeprefix(str(folder)), caught.value.hint


def test_an_adapter_is_its_config_and_the_places_of_its_tensors(tmp_path: Path) -> None:
    folder = write_adapter_files(tmp_path / "a")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    adapter = open_adapter(ModelRef(str(folder)))
    assert adapter.config == ADAPTER
    assert list(adapter.tensors) == ["q.lora_A.weight", "q.lora_B.weight"]
    assert adapter.card == {"license": "mit"}


@pytest.mark.parametrize(
    ("names", "message", "hint"),
    [
        ([], " has no adapter_config.json, so it is not an adapter", None),
        (
            ["config.json", "model.safetensors"],
            " has no adapter_config.json, so it is not an adapter",
            "What stands behind the + is an adapter; list whole models one by one.",
        ),
        (
            ["adapter_config.json", "adapter_model.bin"],
            " has pickled weights only, which can run any code when they are read",
            "Load it with peft and save it again with `save_pretrained`, which writes safetensors.",
        ),
        (["adapter_config.json"], " has no adapter_model.safetensors", None),
    ],
)
def test_what_is_no_adapter_is_refused(tmp_path: Path, names: list[str], message: str, hint: str | None) -> None:
    folder = write_checkpoint(tmp_path / "a", dict.fromkeys(names, b""), config=None)
    assert refusal(folder) == (message, hint)


def test_a_quantised_adapter_is_refused(tmp_path: Path) -> None:
    folder = write_adapter_files(tmp_path / "a", names=["q.lora_A.weight.absmax"])
    assert refusal(folder) == (" is quantised: it has a tensor q.lora_A.weight.absmax", DEQUANTIZE)


def test_an_adapter_that_cannot_be_folded_in_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    folder = write_adapter_files(tmp_path / "a", config={**ADAPTER, "peft_type": "LOKR"})
    assert refusal(folder)[0] == " is an adapter of type LOKR; only LORA can be folded in"


def test_models_and_adapters_that_fail_are_named_together(tmp_path: Path) -> None:
    model = str(write_checkpoint(tmp_path / "m", {"model.safetensors": ["a"]}))
    refs = [ModelRef(model, adapter=ModelRef(f"{tmp_path}/x")), ModelRef(f"{tmp_path}/y")]
    with pytest.raises(SourceError) as caught:
        open_checkpoints(refs)
    assert str(caught.value) == (
        f"2 models cannot be used:\n  - there is no folder {tmp_path}/x\n  - there is no folder {tmp_path}/y"
    )


def test_models_and_adapters_are_parents_once_each(tmp_path: Path) -> None:
    model = ModelRef(str(write_checkpoint(tmp_path / "m", {"model.safetensors": ["a"]})))
    one, two = (ModelRef(str(write_adapter_files(tmp_path / name))) for name in ("one", "two"))
    adapted = [ModelRef(model.path, adapter=adapter) for adapter in (one, two)]
    parents = parent_checkpoints(open_checkpoints([adapted[0], model, adapted[1]]).values())
    assert list(parents) == [(model, False), (one, True), (two, True)]
    assert all(parent.ref == ref and parent.adapter is None for (ref, _), parent in parents.items())
