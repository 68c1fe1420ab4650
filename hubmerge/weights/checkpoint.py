"""A checkpoint without its data: the pinned commit, config.json, and where every tensor lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubmerge.weights.files import Files
from hubmerge.weights.header import TensorInfo

if TYPE_CHECKING:
    from hubmerge.weights.reference import ModelRef


@dataclass(frozen=True)
class SourceTensor:
    """A tensor and the file that holds it."""

    file: str
    info: TensorInfo


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a model before one byte of its weights is read.

    Attributes:
        ref: As the recipe names it; its adapter is not looked at here.
        sha: The commit that `files` reads from; None for a folder.
        config: config.json.
        tensors: By name, in the order of the files and of the data in them.
        card: Front matter of README.md; empty if there is none.
        gated: Readers have to accept terms first.
        notes: What the reader should know about these files, one sentence each.
    """

    ref: ModelRef
    sha: str | None
    files: Files
    config: Mapping[str, Any]
    tensors: Mapping[str, SourceTensor]
    card: Mapping[str, Any]
    gated: bool
    private: bool
    notes: tuple[str, ...] = ()
