"""Which files of a repo hold its weights, and which file holds which tensor, as far as an index says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hubmerge.errors import SourceError
from hubmerge.weights.files import Files
from hubmerge.weights.json_files import read_json_object

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ADAPTER_FILE = "adapter_model.safetensors"

INDEX_LIMIT_BYTES = 100_000_000
"""The index of a 671-billion-parameter model has 9 MB."""

_NUMBERED = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")


@dataclass(frozen=True)
class ShardIndex:
    """The weights' files.

    Attributes:
        files: In order of their names.
        weight_map: Tensor name -> file; empty where the files speak for themselves.
        notes: What the reader should know about the choice, one sentence each.
    """

    files: tuple[str, ...]
    weight_map: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_shards(files: Files) -> ShardIndex:
    """Returns where the weights are; nothing in it if there are no safetensors files.

    transformers takes `model.safetensors` before an index, and so it is done here; without either, all of `model*`,
    else an index of another name, else whatever safetensors files there are.

    Raises:
        SourceError: The index is broken or a shard is missing.
    """
    top = [path for path in files.entries() if "/" not in path]
    if SINGLE_FILE in top:
        return ShardIndex((SINGLE_FILE,), notes=_note_on_index(files, top))
    if INDEX_FILE in top:
        return _read_index(files, INDEX_FILE)
    weights = [path for path in top if path.endswith(".safetensors") and path != ADAPTER_FILE]
    ours = [path for path in weights if path.startswith("model")]
    indexes = [path for path in top if path.endswith(".safetensors.index.json")]
    if not ours and len(indexes) == 1:
        return _read_index(files, indexes[0])
    _check_numbering(files.label, ours or weights)
    return ShardIndex(tuple(ours or weights))


def _note_on_index(files: Files, top: Iterable[str]) -> tuple[str, ...]:
    if INDEX_FILE not in top:
        return ()
    return (f"{files.label} has {SINGLE_FILE} and {INDEX_FILE}; the first is used, as transformers does",)


def _read_index(files: Files, path: str) -> ShardIndex:
    index = read_json_object(files, path, limit_bytes=INDEX_LIMIT_BYTES)
    weight_map = _weight_map_of(index, where=f"{files.label}/{path}")
    shards = tuple(sorted(set(weight_map.values())))
    foreign = [shard for shard in shards if shard not in files.entries() or not shard.endswith(".safetensors")]
    if foreign:
        raise SourceError(
            f"{files.label}/{path} names files that are not safetensors files of it: {abbreviated(foreign)}"
        )
    return ShardIndex(shards, weight_map)


def _weight_map_of(index: Mapping[str, Any], *, where: str) -> Mapping[str, str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise SourceError(f"{where} has no weight_map from tensor names to files")
    return weight_map


def _check_numbering(label: str, weights: Iterable[str]) -> None:
    """Raises SourceError if `x-00001-of-00003.safetensors` is there without the other two."""
    present = set(weights)
    matches = [match for match in map(_NUMBERED.fullmatch, sorted(present)) if match]
    series = {(match["stem"], match["total"]) for match in matches}
    for stem, total in sorted(series):
        wanted = (f"{stem}-{number:05}-of-{total}.safetensors" for number in range(1, int(total) + 1))
        if missing := [name for name in wanted if name not in present]:
            raise SourceError(f"{label} lacks {abbreviated(missing)}")


def abbreviated(names: Sequence[str], *, most: int = 3) -> str:
    """Returns the first names in one line, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
