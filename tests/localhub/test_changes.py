"""The body of a commit and what it does to a tree."""

from __future__ import annotations

import json

import pytest

from hubmerge.localhub.changes import (
    AddLarge,
    AddRegular,
    DeleteFile,
    DeleteFolder,
    Header,
    PutEntry,
    apply_changes,
    changed_paths,
    parse_body,
)
from hubmerge.localhub.records import FileEntry
from hubmerge.localhub.refusals import Refusal


def entry(text: str) -> FileEntry:
    return FileEntry(sha256=text, size=1, oid=text, large=False)


TREE = {"README.md": entry("r"), "a/b": entry("b"), "a/c/d": entry("d")}
HEADER = {"key": "header", "value": {"summary": "s"}}


def parse(*items: object) -> list[object]:
    return list(parse_body(json.dumps(item).encode() for item in items)[1])


def refusal(*items: object) -> str:
    with pytest.raises(Refusal) as caught:
        parse(*items)
    return caught.value.message


def test_a_body_is_a_header_and_changes() -> None:
    value = {"summary": "s", "description": "d", "parentCommit": "0" * 40}
    header, changes = parse_body([json.dumps({"key": "header", "value": value}).encode(), b"\n"])
    assert (header, list(changes)) == (Header("s", "d", "0" * 40), [])


def test_every_operation_of_the_clients_is_known() -> None:
    sha256 = "ab" * 32
    assert parse(
        HEADER,
        {"key": "file", "value": {"path": "x", "content": "aGk=", "encoding": "base64"}},
        {"key": "lfsFile", "value": {"path": "y", "algo": "sha256", "oid": sha256}},
        {"key": "deletedFile", "value": {"path": "z"}},
        {"key": "deletedFolder", "value": {"path": "f/"}},
    ) == [AddRegular("x", b"hi"), AddLarge("y", sha256, None), DeleteFile("z"), DeleteFolder("f")]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "The first line of a commit must be its header"),
        ([{"key": "file", "value": {}}], "The first line of a commit must be its header"),
        ([{"key": "header", "value": {}}], "A commit needs a summary"),
        ([7], "Every line of a commit must be a JSON object with a key and a value"),
        ([HEADER, {"key": "file", "value": 1}], "The value of 'file' must be an object"),
        ([HEADER, {"key": "rename", "value": {}}], "Unknown operation in commit: 'rename'"),
        ([HEADER, {"key": "file", "value": {"path": "../x"}}], "Invalid path in repo: '../x'"),
        (
            [HEADER, {"key": "file", "value": {"path": "x", "content": "?", "encoding": "base64"}}],
            "The content of x is not base64",
        ),
        ([HEADER, {"key": "lfsFile", "value": {"path": "x", "oid": "../../etc"}}], "Invalid sha256: '../../etc'"),
    ],
)
def test_a_malformed_body_is_refused(items: list[object], message: str) -> None:
    assert refusal(*items) == message


def test_changes_are_applied_in_their_order() -> None:
    changes = [DeleteFolder("a"), PutEntry("a", entry("file now")), DeleteFile("README.md")]
    assert apply_changes(TREE, changes) == {"a": entry("file now")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (DeleteFile("a"), "A file with this name doesn't exist: a"),
        (DeleteFolder("b"), "A folder with this name doesn't exist: b"),
        (PutEntry("a", entry("x")), "a cannot be a file and a folder at once"),
        (PutEntry("README.md/x", entry("x")), "README.md cannot be a file and a folder at once"),
    ],
)
def test_changes_that_do_not_fit_the_tree_are_refused(change: object, message: str) -> None:
    with pytest.raises(Refusal) as caught:
        apply_changes(TREE, [change])
    assert caught.value.message == message


def test_changed_paths_are_found_by_content() -> None:
    assert changed_paths(TREE, {**TREE, "README.md": entry("new"), "z": entry("z")}) == ["README.md", "z"]
    assert changed_paths(TREE, {}) == ["README.md", "a/b", "a/c/d"]
