"""Merges of real architectures: whatever transformers writes is merged to what it loads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hubmerge.merge.pipeline import plan_recipe
from tests.architectures import MODELS, logits_of
from tests.checkpoints import read_tensors, write_model
from tests.merge.merging import merged
from tests.merge.recipes import sliced, whole

Weights = dict[str, Tensor]
HALF = {"weight": 0.5}


@dataclass(frozen=True)
class Siblings:
    """Two checkpoints of one architecture, and their weights as the model has them in memory."""

    model: PreTrainedModel
    folders: tuple[Path, Path]
    weights: tuple[Weights, Weights]


@pytest.fixture(scope="module", params=MODELS)
def siblings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Siblings:
    model = MODELS[request.param]()
    folder = tmp_path_factory.mktemp("siblings")
    first = write_model(folder / "first", model, seed=1, dtype=torch.float32)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    second = write_model(folder / "second", model, seed=2, dtype=torch.float32)
    return Siblings(model, (first, second), (weights, model.state_dict()))


def loaded(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    result, report = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return result


def slerp(a: Tensor, b: Tensor) -> Tensor:
    """Halfway on the arc between two tensors."""
    cosine = float((a * b).sum() / (a.norm() * b.norm()))
    if abs(cosine) > 0.9995:
        return (a + b) / 2
    angle = math.acos(cosine)
    return (a + b) * math.sin(angle / 2) / math.sin(angle)


def ties(base: Tensor, other: Tensor) -> Tensor:
    """The base with the larger half of the other's changes."""
    delta = (other - base).flatten()
    kept = delta.abs().argsort(descending=True, stable=True)[: max(1, delta.numel() // 2)]
    return base + torch.zeros_like(delta).index_copy(0, kept, delta[kept]).reshape(base.shape)


def test_a_mean_is_loaded_as_the_mean_of_every_weight_and_runs(siblings: Siblings, tmp_path: Path) -> None:
    (first, second), (a, b) = siblings.folders, siblings.weights
    merged(whole("linear", (first, HALF), (second, HALF)), tmp_path / "out")
    result = loaded(siblings.model, tmp_path / "out")
    assert result.state_dict().keys() == a.keys()
    for name, tensor in result.state_dict().items():
        expected = (a[name] + b[name]) / 2 if tensor.is_floating_point() else a[name]
        assert torch.equal(tensor, expected), name
    assert logits_of(result).isfinite().all()


@pytest.mark.parametrize(
    ("direct", "settings"),
    [
        (slerp, {"merge_method": "slerp", "parameters": {"t": 0.5}}),
        (ties, {"merge_method": "ties", "parameters": {"weight": 1, "density": 0.5}}),
    ],
    ids=["slerp", "ties"],
)
def test_every_stored_tensor_is_merged_by_the_formula(
    siblings: Siblings, tmp_path: Path, direct: Callable[[Tensor, Tensor], Tensor], settings: dict[str, object]
) -> None:
    first, second = siblings.folders
    recipe = {**whole("slerp", first, second, base_model=first), **settings}
    result = merged(recipe, tmp_path / "out")
    a, b = read_tensors(first), read_tensors(second)
    assert result.keys() == a.keys()
    for name, tensor in result.items():
        torch.testing.assert_close(tensor, direct(a[name], b[name]), rtol=1e-4, atol=1e-5, msg=name)


def test_stacked_layers_load_as_a_taller_model_and_run(siblings: Siblings, tmp_path: Path) -> None:
    first, second = siblings.folders
    top = plan_recipe(whole("passthrough", first)).layer_count
    merged(sliced("passthrough", {first: (0, top - 1)}, {second: (0, top)}), tmp_path / "out")
    result = loaded(siblings.model, tmp_path / "out")
    assert len(result.state_dict()) > len(siblings.weights[0])
    assert logits_of(result).isfinite().all()
