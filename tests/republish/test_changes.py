"""What a parent's files tell of it, then and now."""

from __future__ import annotations

from typing import Any

import pytest

from hubmerge.card.lock import DeclaredLicence, LockedFile, LockedParent
from hubmerge.republish.changes import Change, ParentNow, compare
from hubmerge.weights.reference import ModelRef

THEN = {"README.md": "1", "model.safetensors": "2", "config.json": "3", "tokenizer.json": "4"}
APACHE = DeclaredLicence(license="apache-2.0")


def then(hashes: dict[str, str], **details: Any) -> LockedParent:
    files = tuple(LockedFile(path=path, size_bytes=1, sha256=value * 64) for path, value in hashes.items())
    known = {"repo_id": "a/b", "sha": "0" * 40, "revision": None, "declared": APACHE, "gated": False}
    return LockedParent(files=files, **known | details)


def now(hashes: dict[str, str], **details: Any) -> ParentNow:
    known = {"ref": ModelRef("a/b"), "sha": "1" * 40, "name": "a/b", "declared": APACHE}
    return ParentNow(hashes={path: value * 64 for path, value in hashes.items()}, **known | details)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("README.md", Change.DOCS),
        (".gitattributes", Change.DOCS),
        ("images/loss.png", Change.DOCS),
        ("onnx/model.safetensors", Change.DOCS),
        ("pytorch_model.bin", Change.DOCS),
        ("model.safetensors", Change.WEIGHTS),
        ("model.safetensors.index.json", Change.WEIGHTS),
        ("adapter_model.safetensors", Change.WEIGHTS),
        ("tokenizer.json", Change.TOKENIZER),
        ("chat_template.jinja", Change.TOKENIZER),
        ("additional_chat_templates/tools.jinja", Change.TOKENIZER),
        ("config.json", Change.CONFIG),
        ("adapter_config.json", Change.CONFIG),
        ("generation_config.json", Change.CONFIG),
    ],
)
@pytest.mark.parametrize("way", ["other", "new", "removed"])
def test_a_file_belongs_to_one_kind(path: str, change: Change, way: str) -> None:
    before = {**THEN, path: "8"} if way != "new" else {each: value for each, value in THEN.items() if each != path}
    after = {**THEN, path: "9"} if way != "removed" else {each: value for each, value in THEN.items() if each != path}
    (status,) = compare([then(before)], [now(after)])
    assert status.changes == (change,)
    assert status.is_stale is (change is not Change.DOCS)
    assert not status.is_grave


def test_a_new_commit_with_the_same_files_is_no_change() -> None:
    (status,) = compare([then(THEN)], [now(THEN)])
    assert (status.changes, status.is_stale) == ((), False)


@pytest.mark.parametrize(
    ("before", "after", "changes", "details"),
    [
        ({}, {"name": "c/d"}, (Change.RENAMED,), ("a/b is called c/d now",)),
        ({}, {"is_gated": True}, (Change.GATED,), ("a/b asks its readers to accept terms now",)),
        ({"gated": True}, {"is_gated": True}, (), ()),
        ({"gated": None}, {"is_gated": True}, (), ()),
        ({"declared": None}, {}, (), ()),
        ({}, {"problem": "it is not there"}, (Change.GONE,), ("it is not there",)),
        ({"gated": True}, {"problem": "no", "is_gated": True}, (Change.GATED,), ("no",)),
        (
            {},
            {"declared": DeclaredLicence(license="other", name="mine", link="https://x.y")},
            (Change.LICENCE,),
            ("a/b declares other (mine) at https://x.y now, and declared apache-2.0",),
        ),
        (
            {},
            {"declared": DeclaredLicence()},
            (Change.LICENCE,),
            ("a/b declares no licence now, and declared apache-2.0",),
        ),
    ],
)
def test_what_is_not_in_a_file(
    before: dict[str, Any], after: dict[str, Any], changes: tuple[Change, ...], details: tuple[str, ...]
) -> None:
    (status,) = compare([then(THEN, **before)], [now(THEN, **after)])
    assert (status.changes, status.details) == (changes, details)
    assert status.is_grave is not {Change.LICENCE, Change.GATED, Change.GONE}.isdisjoint(changes)


def test_a_repo_at_two_revisions_is_compared_with_each() -> None:
    locked = [then(THEN, revision="v1"), then({**THEN, "model.safetensors": "5"}, revision="v2")]
    parents = [now({**THEN, "model.safetensors": "5"}, ref=ModelRef("a/b", "v2")), now(THEN, ref=ModelRef("a/b", "v1"))]
    assert [status.changes for status in compare(locked, parents)] == [(), ()]


def test_parents_that_came_and_went() -> None:
    statuses = compare([then(THEN, repo_id="x/y")], [now(THEN)])
    assert [(status.label, status.changes) for status in statuses] == [
        ("a/b", (Change.ADDED,)),
        ("x/y", (Change.REMOVED,)),
    ]
