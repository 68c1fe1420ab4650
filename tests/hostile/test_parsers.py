"""Files of other people, as hostile as they come: each is read, or refused in one sentence, in bounded time."""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubmerge.card.lock import parse_lock
from hubmerge.errors import CardError, HubmergeError, RecipeError, SourceError
from hubmerge.merge.recipe import load_recipe
from hubmerge.weights.front_matter import read_metadata
from hubmerge.weights.shard_index import find_shards
from tests.hostile.readers import (
    BYTE_READERS,
    OBJECTS,
    READERS,
    DictFiles,
    Json,
    lineage_page,
    lora_config,
    shard_index,
)

LONGEST_SECONDS = 10.0
"""On a machine that does other things too."""

MOST_BYTES = 300_000_000
"""Memory that a hostile file of a megabyte may cost."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Fails where the block takes long or much memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - started < LONGEST_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MOST_BYTES


@settings(max_examples=40, deadline=None)
@given(OBJECTS)
@pytest.mark.parametrize("name", READERS)
def test_any_json_is_read_or_refused(name: str, content: Json) -> None:
    with contextlib.suppress(HubmergeError):
        READERS[name](content)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for read in BYTE_READERS.values():
        with contextlib.suppress(HubmergeError):
            read(content)


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
