"""Diagnostics of models that are made up: a base, and task vectors of chosen lengths and directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hubmerge.diagnostics.diagnostics import Cell, Diagnostics
from hubmerge.diagnostics.meaning import Comparison, comparisons
from hubmerge.diagnostics.statistics import measure

ELEMENTS = 4_000
Models = Mapping[str, Sequence[Tensor]]
"""Name -> its tensor in each layer, the reference first."""


def noise(seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(ELEMENTS, generator=torch.Generator().manual_seed(seed)) * scale


def diagnosed(models: Models, *, has_base: bool, role: str = "q", kept: float | None = None) -> Diagnostics:
    names = tuple(models)
    layers = len(models[names[0]])
    cells = tuple(_cell(models, layer, role, has_base=has_base, kept=kept) for layer in range(layers))
    return Diagnostics(
        method="ties" if has_base else "linear",
        layer_count=layers,
        cells=cells,
        tensors=layers,
        merged=layers,
        measured=layers,
        elements=layers * ELEMENTS,
        sampled=layers * ELEMENTS,
    )


def compared(models: Models, *, has_base: bool, kept: float | None = None) -> Comparison:
    (comparison,) = comparisons(diagnosed(models, has_base=has_base, kept=kept))
    return comparison


def _cell(models: Models, layer: int, role: str, *, has_base: bool, kept: float | None) -> Cell:
    tensors = [layers[layer] for layers in models.values()]
    thinned = None
    if kept is not None:
        mask = torch.arange(ELEMENTS) < kept * ELEMENTS
        thinned = [(tensor - tensors[0]) * mask for tensor in tensors[1:]]
    return Cell(layer, role, tuple(models), has_base, measure(tensors, thinned))
