"""What reads files of other people, each as a function of a made-up content, and how such contents are made up."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from hubmerge.card.lock import parse_lock
from hubmerge.card.render import render_card
from hubmerge.diagnostics.document import parse_notes
from hubmerge.existing.found import open_merged
from hubmerge.lineage.declared import card_texts, declared, wanted_files
from hubmerge.lineage.published import fenced_recipe, recipe_names
from hubmerge.merge.recipe import load_recipe
from hubmerge.publish.folder import FolderPublisher
from hubmerge.publish.plan_note import PlanNote, parse_note
from hubmerge.trainer.pairs import BadRow, pair_of
from hubmerge.trainer.settings_file import load_settings
from hubmerge.weights.files import FileEntry
from hubmerge.weights.front_matter import parse_front_matter
from hubmerge.weights.header import parse_header
from hubmerge.weights.lora_config import parse_lora_config
from hubmerge.weights.shard_index import INDEX_FILE, find_shards
from tests.card.facts import MONARCH

Json = dict[str, Any]

KEYS = st.sampled_from(
    [
        *("r", "lora_alpha", "peft_type", "rank_pattern", "alpha_pattern", "modules_to_save", "init_lora_weights"),
        *("weight_map", "metadata", "dtype", "shape", "data_offsets", "__metadata__", "schema_version", "parents"),
        *("outputs", "files", "path", "size", "sha256", "license", "base_model", "base_model_relation", "tags"),
        *("datasets", "model-index", "models", "merge_method", "recipe", "experts", "source_model", "gate_mode"),
        *("positive_prompts", "architecture", "shared_experts", "model", "parameters", "slices", "layer_range"),
        *("result", "beta", "columns", "split", "config", "prompt", "chosen", "rejected", "role", "content"),
        *("format", "tensors", "sums", "dots", "count", "culprits", "elements", "model_type", "num_hidden_layers"),
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from([10**400, -(10**400), "LORA", "F32", "a/b", "../../etc/passwd", "\ud800", "\x1b[2J", "", "1:1"]),
)
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20
)
OBJECTS = st.dictionaries(KEYS, TREES, max_size=8)


class DictFiles:
    """Files in memory."""

    label = "a/b"

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._contents = contents

    def entries(self) -> Mapping[str, FileEntry]:
        return {path: FileEntry(path, len(content)) for path, content in self._contents.items()}

    def read(self, path: str, start: int, stop: int) -> bytes:
        return self._contents[path][start:stop]

    def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        buffer[:] = self.read(path, start, start + buffer.nbytes)

    def local_path(self, path: str) -> Path | None:
        return None

    def close(self) -> None:
        pass


def lora_config(config: Json) -> None:
    found = parse_lora_config(config, label="a/b")
    for module in ("model.layers.0.self_attn.q_proj", "lm_head", "a" * 60):
        found.rank_of(module)
        found.scale_of(module)
        found.saves(module)


def shard_index(content: Json) -> None:
    find_shards(DictFiles({INDEX_FILE: json.dumps(content).encode(), "model-1.safetensors": b""}))


def header(content: Json) -> None:
    text = json.dumps(content).encode()
    raw = len(text).to_bytes(8, "little") + text
    parse_header(raw, file_size=len(raw) + 64)


def lock(content: Json) -> None:
    parse_lock(json.dumps(content))


def note(content: Json) -> None:
    found = parse_note(json.dumps(content).encode())
    if found is not None:
        assert found.models
        found.differences(PlanNote({"recipe": {"merge_method": "linear"}}))


def card(content: Json) -> None:
    page = (
        f"---\n{json.dumps(content)}\n---\nMerge of [a](https://huggingface.co/a/b)\n```yaml\nmodels:\n```\n".encode()
    )
    lineage_page(page)
    render_card(MONARCH, previous=page.decode())


def lineage_page(page: bytes) -> None:
    parse_front_matter(page)
    texts = card_texts("a/b", None, page)
    wanted_files(texts)
    declared(texts)


def recipe(content: Json) -> None:
    load_recipe(content, lenient=True)


def mixture(content: Json) -> None:
    experts = [{"source_model": "a/b", "positive_prompts": ["x"]}, content.pop("experts", None)]
    load_recipe({"base_model": "a/b", "experts": experts, **content}, lenient=True)


def tuning(content: Json) -> None:
    load_settings(f"{json.dumps({'dpo': {'model': 'a/b', **content}})}\n")


def preference(content: Json) -> None:
    for chat in (False, True):
        with contextlib.suppress(BadRow):
            pair_of(content, {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}, chat=chat)


def diagnostics(content: Json) -> None:
    parse_notes(json.dumps({"files": content}).encode())
    parse_notes(json.dumps(content).encode())


def merged_folder(content: Json) -> None:
    """Somebody's folder with a merge, whose files all hold the content."""
    text = json.dumps(content)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("mergekit_config.yml", "hubmerge.lock.json", "config.json", INDEX_FILE):
            Path(folder, name).write_text(text)
        Path(folder, "README.md").write_text(f"---\n{text}\n---\n")
        with open_merged(folder) as found:
            assert found.title


def staging_folder(content: Json) -> None:
    """A staging folder whose notes and lists hold the content."""
    text = json.dumps(content)
    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder, "out", f".hubmerge-{'0' * 12}")
        staging.mkdir(parents=True)
        for name in ("plan.json", "SHA256SUMS", "moving.txt", "a.safetensors", "a.safetensors.notes"):
            (staging / name).write_text(text)
        publisher = FolderPublisher(Path(folder, "out"), fingerprint="0" * 12)
        try:
            publisher.open()
        finally:
            publisher.close()


READERS: dict[str, Callable[[Json], None]] = {
    each.__name__: each
    for each in (
        *(lora_config, shard_index, header, lock, note, card, recipe),
        *(mixture, tuning, preference, diagnostics, merged_folder, staging_folder),
    )
}
"""Of JSON-like contents."""


BYTE_READERS: dict[str, Callable[[bytes], object]] = {
    "header": lambda content: parse_header(content, file_size=len(content)),
    "lock": lambda content: parse_lock(content.decode(errors="replace")),
    "lineage page": lineage_page,
    "note": parse_note,
    "recipe in a card": lambda content: recipe_names(fenced_recipe(content.decode(errors="replace")) or "a"),
    "recipe": lambda content: load_recipe(f"{content.decode(errors='replace')}\n", lenient=True),
    "tuning": lambda content: load_settings(f"{content.decode(errors='replace')}\n"),
    "diagnostics": parse_notes,
}
"""Of bytes that need not be anything."""
