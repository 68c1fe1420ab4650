"""Recipes as plain data, short enough to be read in a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Entry = Path | Mapping[str, Any] | tuple[Path | Mapping[str, Any], Mapping[str, Any]]


def whole(method: str, *models: Entry, **top: Any) -> dict[str, Any]:
    """Returns a recipe that merges whole models, each alone or as a pair with its parameters."""
    return {"merge_method": method, "models": [_entry(model) for model in models], **_texts(top)}


def sliced(method: str, *slices: Mapping[Path, tuple[int, int]], **top: Any) -> dict[str, Any]:
    """Returns a recipe of slices, each the layers [start, stop) of its models."""
    rows = [
        {"sources": [{"model": str(model), "layer_range": list(layers)} for model, layers in slice_.items()]}
        for slice_ in slices
    ]
    return {"merge_method": method, "slices": rows, **_texts(top)}


def _entry(entry: Entry) -> dict[str, Any]:
    model, parameters = entry if isinstance(entry, tuple) else (entry, {})
    return {"model": _text(model), **({"parameters": dict(parameters)} if parameters else {})}


def _texts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _text(value) for key, value in values.items()}


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
