"""Files of other people, as hostile as they come: each is read, or refused in one sentence, in bounded time."""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubmerge.card.lock import parse_lock
from hubmerge.errors import CardError, HubmergeError, RecipeError, SourceError
from hubmerge.lineage.declared import card_texts, declared, wanted_files
from hubmerge.lineage.published import fenced_recipe, recipe_names
from hubmerge.merge.recipe import load_recipe
from hubmerge.publish.plan_note import PlanNote, parse_note
from hubmerge.weights.files import FileEntry
from hubmerge.weights.front_matter import parse_front_matter, read_metadata
from hubmerge.weights.header import parse_header
from hubmerge.weights.lora_config import parse_lora_config
from hubmerge.weights.shard_index import INDEX_FILE, find_shards

LONGEST_SECONDS = 10.0
"""On a machine that does other things too."""

MOST_BYTES = 300_000_000
"""Memory that a hostile file of a megabyte may cost."""

KEYS = st.sampled_from(
    [
        *("r", "lora_alpha", "peft_type", "rank_pattern", "alpha_pattern", "modules_to_save", "init_lora_weights"),
        *("weight_map", "metadata", "dtype", "shape", "data_offsets", "__metadata__", "schema_version", "parents"),
        *("outputs", "files", "path", "size", "sha256", "license", "base_model", "base_model_relation", "tags"),
        *("datasets", "model-index", "models", "merge_method", "recipe"),
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


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Fails where the block takes long or much memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - started < LONGEST_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MOST_BYTES


def lora_config(config: dict[str, Any]) -> None:
    found = parse_lora_config(config, label="a/b")
    for module in ("model.layers.0.self_attn.q_proj", "lm_head", "a" * 60):
        found.rank_of(module)
        found.scale_of(module)
        found.saves(module)


def shard_index(content: dict[str, Any]) -> None:
    find_shards(DictFiles({INDEX_FILE: json.dumps(content).encode(), "model-1.safetensors": b""}))


def header(content: dict[str, Any]) -> None:
    text = json.dumps(content).encode()
    raw = len(text).to_bytes(8, "little") + text
    parse_header(raw, file_size=len(raw) + 64)


def lock(content: dict[str, Any]) -> None:
    parse_lock(json.dumps(content))


def note(content: dict[str, Any]) -> None:
    found = parse_note(json.dumps(content).encode())
    if found is not None:
        assert found.models
        found.differences(PlanNote({"recipe": {"merge_method": "linear"}}))


def card(content: dict[str, Any]) -> None:
    page = (
        f"---\n{json.dumps(content)}\n---\nMerge of [a](https://huggingface.co/a/b)\n```yaml\nmodels:\n```\n".encode()
    )
    lineage_page(page)


def lineage_page(page: bytes) -> None:
    parse_front_matter(page)
    texts = card_texts("a/b", None, page)
    wanted_files(texts)
    declared(texts)


def recipe(content: dict[str, Any]) -> None:
    load_recipe(content, lenient=True)


@settings(max_examples=60)
@given(OBJECTS)
@pytest.mark.parametrize("read", [lora_config, shard_index, header, lock, note, card, recipe])
def test_any_json_is_read_or_refused(read: Callable[[dict[str, Any]], None], content: dict[str, Any]) -> None:
    with contextlib.suppress(HubmergeError):
        read(content)


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    text = content.decode(errors="replace")
    for read in (
        lambda: parse_header(content, file_size=len(content)),
        lambda: parse_lock(text),
        lambda: lineage_page(content),
        lambda: parse_note(content),
        lambda: recipe_names(fenced_recipe(text) or text),
    ):
        with contextlib.suppress(HubmergeError):
            read()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(12)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{', '.join([f'*{chr(97 + n)}'] * 10)}]}}\n" for n in range(12)
)
HOSTILE_YAML = {
    "a bomb of lists": BOMB,
    "a bomb of merge keys": MERGE_BOMB,
    "deep nesting": "a: " + "[" * 5000,
    "deep mappings": "\n".join(" " * n + "a:" for n in range(900)),
    "a huge number": "license: " + "9" * 100_000,
    "a huge hexadecimal number": "license: 0x" + "f" * 100_000,
    "a huge number of base 60": "license: " + ":".join(["59"] * 50_000),
    "a circle": "license: &a [*a]",
    "a binary": "license: !!binary " + "A" * 1000,
    "a python object": "license: !!python/object/apply:os.system [true]",
}


@pytest.mark.parametrize("text", HOSTILE_YAML.values(), ids=HOSTILE_YAML.keys())
def test_hostile_yaml_costs_little_and_ends_in_a_sentence(text: str) -> None:
    with bounded():
        with contextlib.suppress(RecipeError):
            load_recipe(text + "\n", lenient=True)
        lineage_page(f"---\n{text}\n---\n```yaml\nmerge_method: linear\n{text}\n```\n".encode())
        with contextlib.suppress(ValueError):
            json.dumps(read_metadata(text), default=str)


def test_numbers_of_files_that_nobody_has_cost_nothing() -> None:
    names = [f"model{number}-00001-of-99999.safetensors" for number in range(400)]
    with bounded(), pytest.raises(SourceError, match=r"lacks model0-00002-of-99999.safetensors, .* and 99995 more"):
        find_shards(DictFiles(dict.fromkeys(names, b"")))


@pytest.mark.parametrize("target", ["../secret.safetensors", "/etc/passwd", "a/../../b.safetensors"])
def test_an_index_names_no_file_outside_its_repo(target: str) -> None:
    with pytest.raises(SourceError, match="names files that are not safetensors files of it"):
        shard_index({"weight_map": {"weight": target}})


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "a\\b", "C:x"])
def test_a_lock_file_names_no_path_outside_its_repo(path: str) -> None:
    output = {"path": path, "size": 1, "sha256": "0" * 64}
    content = {"schema_version": 1, "hubmerge_version": "1", "torch_version": "2", "fingerprint": "f", "seed": 1}
    with pytest.raises(CardError, match="must be a path inside the repo"):
        parse_lock(json.dumps({**content, "parents": [], "outputs": [output]}))


def test_a_regular_expression_that_would_take_for_ever_is_refused() -> None:
    for pattern in ("(a+)+$", "(a|a)*b", "(.*a){20}", ".*.*.*.*.*.*.*.*.*b"):
        with bounded(), contextlib.suppress(SourceError):
            lora_config({"peft_type": "LORA", "r": 8, "lora_alpha": 8, "rank_pattern": {pattern: 4}})
