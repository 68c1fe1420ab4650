"""diagnostics.json: the numbers behind the picture, for other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from hubmerge.diagnostics.diagnostics import Cell, Diagnostics
from hubmerge.diagnostics.statistics import (
    Matrix,
    cosines,
    kept_shares,
    relative_norms,
    sign_conflict,
    task_vector_cosines,
)

DIAGNOSTICS_FILE = "diagnostics.json"
NO_NOTES: Mapping[str, bytes] = MappingProxyType({})
DIGITS = 6
"""Significant ones; a sample does not give more, and machines differ beyond them."""


def render_diagnostics(
    diagnostics: Diagnostics, *, sentences: Iterable[str], notes: Mapping[str, bytes] = NO_NOTES
) -> str:
    """Returns the content of diagnostics.json, one line a cell and one a file of weights.

    Args:
        diagnostics: What was found.
        sentences: What it means.
        notes: On each file of weights by its SHA-256, for a later merge that keeps the file.
    """
    models = diagnostics.models
    cells = [json.dumps(_cell(cell, models), ensure_ascii=False) for cell in diagnostics.cells]
    head = json.dumps(_head(diagnostics, sentences), indent=2, ensure_ascii=False)
    shards = [f'"{sha256}": {notes[sha256].decode()}' for sha256 in sorted(notes)]
    listed = f',\n  "cells": [{_lines(cells)}]' + (f',\n  "files": {{{_lines(shards)}}}' if shards else "")
    return head.removesuffix("\n}") + listed + "\n}\n"


def parse_notes(content: bytes) -> dict[str, bytes]:
    """Returns the notes in a diagnostics.json, which anybody may have written; none where it has none."""
    try:
        files = json.loads(content).get("files", {})
        return {sha256: json.dumps(notes, separators=(",", ":")).encode() for sha256, notes in files.items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


def _lines(items: Iterable[str]) -> str:
    return "\n    " + ",\n    ".join(items) + "\n  "


def _head(diagnostics: Diagnostics, sentences: Iterable[str]) -> Mapping[str, Any]:
    return {
        "format": 1,
        "method": diagnostics.method,
        "layers": diagnostics.layer_count,
        "tensors": diagnostics.tensors,
        "merged_tensors": diagnostics.merged,
        "measured_tensors": diagnostics.measured,
        "merged_elements": diagnostics.elements,
        "sampled_elements": diagnostics.sampled,
        "meaning": list(sentences),
        "non_finite": [
            {
                "tensor": found.tensor,
                "values": found.count,
                "carried_over": found.is_copied,
                "models": dict(found.culprits),
            }
            for found in diagnostics.non_finite
        ],
        "models": list(diagnostics.models),
    }


def _cell(cell: Cell, models: tuple[str, ...]) -> Mapping[str, Any]:
    """Returns one cell; pairs are in the order (0, 1), (0, 2), ..., (1, 2), ... of its own models."""
    sums = cell.sums
    content: dict[str, Any] = {
        "layer": cell.layer,
        "role": cell.role,
        "models": [models.index(name) for name in cell.models],
        "has_base": cell.has_base,
        "sampled": sums.elements,
        "relative_norm": [_number(value) for value in relative_norms(sums)],
        "cosine": _pairs(cosines(sums)),
    }
    if cell.has_base:
        conflict = sign_conflict(sums)
        content["task_vector_cosine"] = _pairs(task_vector_cosines(sums))
        content["sign_conflict"] = None if conflict is None else _number(conflict.rate)
        content["sign_conflict_by_chance"] = None if conflict is None else _number(conflict.chance)
    if (shares := kept_shares(sums)) is not None:
        content["kept"] = [_number(share) for share in shares]
    return content


def _pairs(matrix: Matrix) -> list[float | None]:
    return [_number(value) for value in matrix[np.triu_indices(len(matrix), 1)]]


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(f"{value:.{DIGITS}g}")
