"""Merges a recipe over stand-ins and compares the result with what the recipe means."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.merge.recipe import Recipe
from hubmerge.weights.reference import ModelRef, parse_reference
from tests.checkpoints import read_tensors
from tests.merge.merging import WEIGHTS_ONLY, ulps
from tests.merge.wild.reference import Reference
from tests.merge.wild.stand_ins import StandIns, any_tokenizer, layers_of

_VOCABULARY = re.compile(r"embed_tokens|lm_head|wte")
_ADAPTED = re.compile(r"q_proj\.weight")


def assert_agrees(recipe: Recipe, stand_ins: StandIns, folder: Path) -> None:
    """Merges and fails if a tensor is missing, has another shape or dtype, or other values than the formulas give."""
    replaced, stand_in_of = stand_ins.of(recipe)
    merge_to_folder(replaced, folder, options=WEIGHTS_ONLY)
    result, config = read_tensors(folder), json.loads((folder / "config.json").read_text())
    stored = {ref: read_tensors(Path(stand_in.path)) for ref, stand_in in stand_in_of.items()}
    reference = Reference(recipe.text, lambda name: _tensors_of(name, stored), layers=layers_of(recipe))
    layers = reference.layer_count()
    assert set(result) == _names(next(iter(stored.values())), layers)
    assert (config.get("num_hidden_layers") or config.get("n_layer")) == layers, config
    skipped = [_VOCABULARY] * any_tokenizer(recipe) + [_ADAPTED] * any(ref.adapter for ref in stand_in_of)
    for name, tensor in result.items():
        assert tensor.isfinite().all(), name
        if _VOCABULARY.search(name):
            assert len(tensor) == config["vocab_size"]
        if _is_sampled(name, layers) and not any(pattern.search(name) for pattern in skipped):
            _assert_close(tensor, reference.tensor(reference.root, name), name)


def _assert_close(tensor: Tensor, expected: Tensor, name: str) -> None:
    assert tensor.shape == expected.shape, name
    assert tensor.dtype == expected.dtype, name
    if tensor.dtype == torch.float32:
        torch.testing.assert_close(tensor, expected, rtol=2e-5, atol=2e-6)
    else:
        # Where terms cancel, neighbours of the dtype are closer than fp32 arithmetic is exact.
        near = (tensor.float() - expected.float()).abs() < 1e-6
        assert ulps(tensor[~near], expected[~near]) <= 1, name


def _is_sampled(name: str, layers: int) -> bool:
    """Whether a tensor is outside the layers, or in one of four: the formulas of deep models take long."""
    found = re.search(r"\.(\d+)\.", name)
    return found is None or int(found[1]) in (0, 1, layers // 2, layers - 1)


def _names(model: Mapping[str, Tensor], layers: int) -> set[str]:
    """Returns what a model with another number of layers has."""
    number = re.compile(r"\.\d+\.")
    return {number.sub(f".{layer}.", name) for name in model for layer in range(layers)}


def _tensors_of(name: str, stored: Mapping[ModelRef, Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    return stored[parse_reference(name)]
