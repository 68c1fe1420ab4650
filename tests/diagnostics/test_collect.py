from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hubmerge.diagnostics import statistics
from hubmerge.diagnostics.heat_map import PICTURE_FILE
from hubmerge.errors import MergeError
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.merge.progress import Silent, Stage
from hubmerge.merge.stream import StreamOptions
from tests.checkpoints import read_tensors, write_changed, write_tensors
from tests.diagnostics.conftest import ODD
from tests.merge.merging import hashes


def ties(family: Mapping[str, Path], *tuned: Path, **more: Any) -> dict[str, Any]:
    models = [{"model": str(path), "parameters": {"weight": 0.5, "density": 0.5}} for path in tuned]
    return {"merge_method": "ties", "base_model": str(family["base"]), "models": models, "dtype": "bfloat16", **more}


def both(family: Mapping[str, Path]) -> dict[str, Any]:
    return ties(family, family["a"], family["b"])


def linear(*models: Path, dtype: str = "bfloat16") -> dict[str, Any]:
    return {
        "merge_method": "linear",
        "models": [{"model": str(path), "parameters": {"weight": 1.0}} for path in models],
        "dtype": dtype,
    }


def diagnostics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "diagnostics.json").read_text())
    return content


def test_numbers_are_those_of_whole_tensors(family: Mapping[str, Path], tmp_path: Path) -> None:
    merge_to_folder(both(family), tmp_path / "out")
    found = diagnostics(tmp_path / "out")
    cell = next(cell for cell in found["cells"] if (cell["layer"], cell["role"]) == (1, "up"))
    base, a, b = (read_tensors(family[name])[ODD].double().numpy().ravel() for name in ("base", "a", "b"))
    np.testing.assert_allclose(
        cell["relative_norm"], [np.linalg.norm(each - base) / np.linalg.norm(base) for each in (a, b)], rtol=1e-5
    )
    conflict = ((a - base) * (b - base) < 0).sum() / (((a - base) != 0) & ((b - base) != 0)).sum()
    assert cell["sign_conflict"] == pytest.approx(conflict, rel=1e-5)
    assert cell["kept"][0] == pytest.approx(0.5 * a.size / ((a - base) != 0).sum(), rel=1e-5)
    assert found["models"] == ["base", "a", "b"]
    assert {cell["role"] for cell in found["cells"]} == {"embed", "norm", *"qkvo", "gate", "up", "down", "head"}


def test_threads_change_nothing(family: Mapping[str, Path], tmp_path: Path) -> None:
    for threads in (1, 4):
        options = MergeOptions(stream=StreamOptions(threads=threads))
        merge_to_folder(both(family), tmp_path / str(threads) / "out", options=options)
    assert hashes(tmp_path / "1") == hashes(tmp_path / "4")


class _Stopping(Silent):
    """Fails once two shards have been staged."""

    def __init__(self) -> None:
        self._staged = 0

    def advance(self, stage: Stage, size_bytes: int) -> None:
        self._staged += stage is Stage.STAGE
        if self._staged == 2:
            raise KeyboardInterrupt


def test_a_resumed_merge_tells_the_same(family: Mapping[str, Path], tmp_path: Path) -> None:
    options = MergeOptions(shard_bytes=20_000)
    merge_to_folder(both(family), tmp_path / "whole" / "out", options=options)
    with pytest.raises(KeyboardInterrupt):
        merge_to_folder(both(family), tmp_path / "resumed" / "out", options=options, progress=_Stopping())
    merge_to_folder(both(family), tmp_path / "resumed" / "out", options=options)
    assert hashes(tmp_path / "resumed") == hashes(tmp_path / "whole")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda notes: b"{",
        lambda notes: b'{"format": ' + b"[" * 100_000,
        lambda notes: re.sub(rb'"dots":\[\[.*?\]\]', b'"dots":[[1.0]]', notes),
        lambda notes: notes.replace(b'"elements":', b'"elements":"x","were":'),
        lambda notes: notes.replace(b'"count":0', b'"count":1e400'),
        lambda notes: notes.replace(b'"culprits":[]', b'"culprits":["../x"]'),
    ],
    ids=["cut", "deep", "other shapes", "text", "infinite", "no counts"],
)
def test_a_shard_whose_notes_cannot_be_read_is_made_again(
    family: Mapping[str, Path], tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    options = MergeOptions(shard_bytes=20_000)
    with pytest.raises(KeyboardInterrupt):
        merge_to_folder(both(family), tmp_path / "out", options=options, progress=_Stopping())
    for notes in (tmp_path / "out").glob(".hubmerge-*/*.notes"):
        intact = notes.read_bytes()
        notes.write_bytes(spoil(intact))
        assert notes.read_bytes() != intact
    merge_to_folder(both(family), tmp_path / "out", options=options)
    found = diagnostics(tmp_path / "out")
    assert found["measured_tensors"] == found["merged_tensors"]


def test_few_blocks_of_a_large_tensor_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [
        write_tensors(tmp_path / name, {"model.layers.0.mlp.up_proj.weight": torch.full((2048, 1024), value)})
        for name, value in (("a", 1.0), ("b", 2.0))
    ]
    sizes: list[int] = []
    measure = statistics.measure

    def counting(operands: list[Any], kept: object) -> statistics.Sums:
        sizes.append(operands[0].size)
        return measure(operands, None)

    monkeypatch.setattr("hubmerge.diagnostics.collect.measure", counting)
    merge_to_folder(linear(*models, dtype="float32"), tmp_path / "out")
    assert sizes == [4_096] * 4


def test_the_card_shows_and_explains(family: Mapping[str, Path], tmp_path: Path) -> None:
    merge_to_folder(both(family), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Diagnostics\n\n- The task vectors are " in card
    assert f"]({PICTURE_FILE})" in card
    assert (tmp_path / "out" / PICTURE_FILE).read_bytes().startswith(b"\x89PNG")


def test_diagnostics_can_be_left_out(family: Mapping[str, Path], tmp_path: Path) -> None:
    merge_to_folder(both(family), tmp_path / "out", options=MergeOptions(diagnostics=False))
    assert not list((tmp_path / "out").glob("diagnostics.*"))
    assert "Diagnostics" not in (tmp_path / "out" / "README.md").read_text()


def test_a_model_with_nan_is_named(family: Mapping[str, Path], with_nan: Path, tmp_path: Path) -> None:
    with pytest.raises(MergeError) as caught:
        merge_to_folder(linear(family["a"], with_nan), tmp_path / "out")
    assert str(caught.value) == f"{ODD}: NaN or infinity in 2 values of broken"
    assert caught.value.hint == "Leave that model out, or let such values pass: --allow-nan"
    assert not (tmp_path / "out").exists()


def test_nan_may_be_let_pass(family: Mapping[str, Path], with_nan: Path, tmp_path: Path) -> None:
    merge_to_folder(linear(family["a"], with_nan), tmp_path / "out", options=MergeOptions(allow_nan=True))
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"- **Warning:** {ODD} holds NaN or infinity in 2 values, from broken." in card
    assert diagnostics(tmp_path / "out")["non_finite"] == [
        {"tensor": ODD, "values": 2, "carried_over": False, "models": {"broken": 2}}
    ]


def test_an_overflow_of_the_merge_itself(family: Mapping[str, Path], tmp_path: Path) -> None:
    large = read_tensors(family["b"])[ODD].clone()
    large.view(-1)[7] = 3e5
    model = write_changed(tmp_path / "large", family["b"], {ODD: large})
    with pytest.raises(MergeError) as caught:
        merge_to_folder(linear(family["a"], model, dtype="float16"), tmp_path / "out")
    assert str(caught.value) == f"{ODD}: NaN or infinity in 1 value of the merge, but in none of its models"
    assert caught.value.hint == "Write dtype: bfloat16, whose range is larger, or let such values pass: --allow-nan"


def test_what_is_only_carried_over_may_be_infinite(tmp_path: Path) -> None:
    mask = {"model.mask": torch.tensor([0.0, -float("inf")])}
    model = write_tensors(tmp_path / "model", mask)
    recipe = {"merge_method": "passthrough", "models": [{"model": str(model)}]}
    merge_to_folder({**recipe, "dtype": "bfloat16"}, tmp_path / "cast")
    merge_to_folder({**recipe, "dtype": "float32"}, tmp_path / "copied")
    for folder in ("cast", "copied"):
        assert read_tensors(tmp_path / folder)["model.mask"].tolist() == [0.0, -float("inf")]
        assert diagnostics(tmp_path / folder)["non_finite"] == [
            {"tensor": "model.mask", "values": 1, "carried_over": True, "models": {"model": 1}}
        ]


def test_a_tree_names_its_inner_merges(family: Mapping[str, Path], tmp_path: Path) -> None:
    inner = linear(family["a"], family["b"])
    merge_to_folder(
        linear(family["base"])
        | {
            "models": [
                {"model": inner, "parameters": {"weight": 1}},
                {"model": str(family["base"]), "parameters": {"weight": 1}},
            ]
        },
        tmp_path / "out",
    )
    assert diagnostics(tmp_path / "out")["models"] == ["linear(a, b)", "base"]
