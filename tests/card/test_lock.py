from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubmerge.card.facts import ChangeFacts, ParentChange
from hubmerge.card.lock import (
    DeclaredLicence,
    LockedFile,
    LockedLicence,
    LockedOptions,
    LockedOutput,
    LockedParent,
    LockFacts,
    parse_lock,
    render_lock,
)
from hubmerge.errors import CardError

SHA = "27d67f1b5f57dc0953326b2601d68371d40ea8da"
LOCK = LockFacts(
    hubmerge_version="0.1.0",
    torch_version="2.13.0",
    fingerprint="sha256:3f0b",
    seed=None,
    parents=(
        LockedParent(
            repo_id="a/b",
            sha=SHA,
            revision="main",
            declared=DeclaredLicence(license="mit"),
            gated=False,
            files=(
                LockedFile(path="config.json", size_bytes=612, blob_id=SHA),
                LockedFile(path="model.safetensors", size_bytes=99, sha256="a" * 64, blob_id=SHA),
            ),
        ),
        LockedParent(repo_id=None, sha=None, revision=None, files=()),
    ),
    outputs=(LockedOutput(path="model.safetensors", size_bytes=99, sha256="b" * 64, made_from="c" * 64),),
    recipe_sha256="d" * 64,
    options=LockedOptions(shard_bytes=4000, lenient=False, lineage=True, diagnostics=True, allow_nan=False, seed=7),
    licence=LockedLicence(license="mit", reasons=("a/b declares mit.",), chosen_because="They let me."),
    changes=ChangeFacts(
        previous_sha=SHA,
        is_recipe_changed=False,
        parents=(ParentChange(repo_id="a/b", old_sha=None, new_sha=SHA, kinds=("weights",)),),
    ),
)
TEXT = """\
{
  "schema_version": 1,
  "hubmerge_version": "0.1.0",
  "torch_version": "2.13.0",
  "fingerprint": "sha256:3f0b",
  "seed": null,
  "recipe_sha256": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
  "options": {
    "shard_bytes": 4000,
    "lenient": false,
    "lineage": true,
    "diagnostics": true,
    "allow_nan": false,
    "seed": 7,
    "device": "cpu"
  },
  "licence": {
    "license": "mit",
    "reasons": [
      "a/b declares mit."
    ],
    "name": null,
    "chosen_because": "They let me."
  },
  "parents": [
    {
      "repo_id": "a/b",
      "sha": "27d67f1b5f57dc0953326b2601d68371d40ea8da",
      "revision": "main",
      "gated": false,
      "declared": {
        "license": "mit",
        "name": null,
        "link": null
      },
      "files": [
        {
          "path": "config.json",
          "size": 612,
          "sha256": null,
          "blob_id": "27d67f1b5f57dc0953326b2601d68371d40ea8da"
        },
        {
          "path": "model.safetensors",
          "size": 99,
          "sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
          "blob_id": "27d67f1b5f57dc0953326b2601d68371d40ea8da"
        }
      ]
    },
    {
      "repo_id": null,
      "sha": null,
      "revision": null,
      "gated": null,
      "declared": null,
      "files": []
    }
  ],
  "outputs": [
    {
      "path": "model.safetensors",
      "size": 99,
      "sha256": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
      "made_from": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
    }
  ],
  "changes": {
    "previous_sha": "27d67f1b5f57dc0953326b2601d68371d40ea8da",
    "is_recipe_changed": false,
    "parents": [
      {
        "repo_id": "a/b",
        "old_sha": null,
        "new_sha": "27d67f1b5f57dc0953326b2601d68371d40ea8da",
        "kinds": [
          "weights"
        ]
      }
    ]
  }
}
"""


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(TEXT), **values})


def test_the_file_as_it_is_written():
    assert render_lock(LOCK) == TEXT


def test_it_is_read_back():
    assert parse_lock(TEXT) == LOCK


def test_what_was_not_recorded_is_not_known():
    content = json.loads(TEXT)
    for key in ("recipe_sha256", "options", "licence", "changes"):
        del content[key]
    content["parents"] = []
    content["outputs"] = [{"path": "x", "size": 1, "sha256": "a" * 64}]
    facts = parse_lock(json.dumps(content))
    assert (facts.recipe_sha256, facts.options, facts.licence, facts.changes) == (None, None, None, None)
    assert facts.outputs[0].made_from is None


def test_seed_zero_is_a_seed():
    assert parse_lock(render_lock(replace(LOCK, seed=0))).seed == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "hubmerge.lock.json: it is not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("[]", "hubmerge.lock.json must be an object"),
        ("null", "hubmerge.lock.json must be an object"),
        ('{"a": NaN}', "hubmerge.lock.json: it is not JSON (NaN is not a number)"),
        ('{"a": 1, "a": 2}', "hubmerge.lock.json: it is not JSON (a key occurs twice in one object)"),
        ("{}", "hubmerge.lock.json: schema_version must be a whole number"),
        (changed(schema_version=2), "hubmerge.lock.json: its schema version is 2, and this hubmerge reads 1"),
        (changed(schema_version=True), "hubmerge.lock.json: schema_version must be a whole number"),
        (changed(fingerprint=""), "hubmerge.lock.json: fingerprint must be a text"),
        (changed(seed=1.5), "hubmerge.lock.json: seed must be a whole number"),
        (changed(parents={}), "hubmerge.lock.json: parents must be a list"),
        (changed(options=[]), "hubmerge.lock.json: options must be an object"),
        (
            changed(options={"shard_bytes": 1, "lenient": "no"}),
            "hubmerge.lock.json: options.lenient must be true or false",
        ),
        (
            changed(licence={"license": None, "reasons": "r"}),
            "hubmerge.lock.json: licence.reasons must be a list of texts",
        ),
        (changed(parents=["a/b"]), "hubmerge.lock.json: parents[0] must be an object"),
        (
            changed(parents=[{"repo_id": "a/b", "sha": "main", "files": []}]),
            "hubmerge.lock.json: parents[0].sha must be 40 hexadecimal digits",
        ),
        (
            changed(parents=[{"files": [{"path": "../x", "size": 1}]}]),
            "hubmerge.lock.json: parents[0].files[0].path must be a path inside the repo",
        ),
        (
            changed(outputs=[{"path": "x", "size": -1, "sha256": "a" * 64}]),
            "hubmerge.lock.json: outputs[0].size must be a number of bytes",
        ),
        (
            changed(outputs=[{"path": "x", "size": 1, "sha256": None}]),
            "hubmerge.lock.json: outputs[0].sha256 must be 64 hexadecimal digits",
        ),
    ],
)
def test_what_is_wrong_and_where(text: str, message: str):
    with pytest.raises(CardError) as caught:
        parse_lock(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("path", ["/etc/passwd", "..", "a/../b", "a//b", "C:x", "a\\b", "", "./a", "a\n", 3])
def test_a_path_stays_inside_the_repo(path: object):
    with pytest.raises(CardError, match="path must be a path inside the repo"):
        parse_lock(changed(outputs=[{"path": path, "size": 1, "sha256": "a" * 64}]))


def test_deep_nesting_is_an_error_and_no_crash():
    with pytest.raises(CardError, match="it is not JSON"):
        parse_lock("[" * 100_000)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["path", "files", "sha"]), inner),
    max_leaves=8,
)


@given(st.sampled_from(sorted(json.loads(TEXT))), values)
def test_any_value_anywhere_is_a_lock_or_an_error(key: str, value: object):
    with suppress(CardError):
        assert isinstance(parse_lock(changed(**{key: value})), LockFacts)
