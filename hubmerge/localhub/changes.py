"""What a commit does to a tree. Pure: parsing one commit body, applying it, comparing trees."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hubmerge.localhub.names import check_file_path, check_sha256
from hubmerge.localhub.records import FileEntry, Tree
from hubmerge.localhub.refusals import Refusal, bad_request


@dataclass(frozen=True)
class Header:
    """The first line of a commit body; `parent` is the head that the client expects."""

    title: str
    message: str
    parent: str | None


@dataclass(frozen=True)
class AddRegular:
    """A small file, sent along."""

    path: str
    content: bytes


@dataclass(frozen=True)
class AddLarge:
    """A large file, uploaded before; clients that copy one by its content id do not send its `size`."""

    path: str
    sha256: str
    size: int | None


@dataclass(frozen=True)
class DeleteFile:
    """One file goes."""

    path: str


@dataclass(frozen=True)
class DeleteFolder:
    """A folder and everything in it goes; the root is written as ""."""

    path: str


@dataclass(frozen=True)
class PutEntry:
    """A file whose content is stored: what the other additions become before they are applied."""

    path: str
    entry: FileEntry


Change = AddRegular | AddLarge | DeleteFile | DeleteFolder
StoredChange = PutEntry | DeleteFile | DeleteFolder


def parse_body(lines: Iterable[bytes]) -> tuple[Header, Iterator[Change]]:
    """Returns the header and, lazily, the changes of an ndjson commit body."""
    items = (_parse_line(line) for line in lines if line.strip())
    key, value = next(items, ("", {}))
    if key != "header":
        raise bad_request("The first line of a commit must be its header")
    header = Header(str(value.get("summary", "")), str(value.get("description", "")), value.get("parentCommit"))
    if not header.title:
        raise bad_request("A commit needs a summary")
    return header, (_parse_change(key, value) for key, value in items)


def apply_changes(tree: Tree, changes: Iterable[StoredChange]) -> dict[str, FileEntry]:
    """Returns the tree after the changes, in their order.

    Raises:
        Refusal: A deletion of what is not there, or a file where a folder is needed.
    """
    result = dict(tree)
    for change in changes:
        match change:
            case PutEntry(path, entry):
                result[path] = entry
            case DeleteFile(path):
                if result.pop(path, None) is None:
                    raise _nothing_to_delete(path, "file")
            case DeleteFolder(path):
                result = _without_folder(result, path)
    _check_no_file_is_a_folder(result)
    return result


def changed_paths(before: Tree, after: Tree) -> list[str]:
    """Returns the paths added, removed or with other content, sorted."""
    paths = sorted({*before, *after})
    return [path for path in paths if _content(before, path) != _content(after, path)]


def _content(tree: Tree, path: str) -> str | None:
    return tree[path].oid if path in tree else None


def _parse_line(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        item = json.loads(line)
        key, value = item["key"], item["value"]
    except (ValueError, KeyError, TypeError):
        raise bad_request("Every line of a commit must be a JSON object with a key and a value") from None
    if not isinstance(value, dict):
        raise bad_request(f"The value of {key!r} must be an object")
    return key, value


def _parse_change(key: str, value: Mapping[str, Any]) -> Change:
    path = str(value.get("path", ""))
    match key:
        case "deletedFolder":
            folder = path.strip("/")
            return DeleteFolder(check_file_path(folder) if folder else "")
        case "deletedFile":
            return DeleteFile(check_file_path(path))
        case "file":
            return AddRegular(check_file_path(path), _decode(value))
        case "lfsFile":
            return AddLarge(check_file_path(path), check_sha256(value.get("oid")), value.get("size"))
    raise bad_request(f"Unknown operation in commit: {key!r}")


def _decode(value: Mapping[str, Any]) -> bytes:
    content = value.get("content", "")
    if value.get("encoding") != "base64":
        return str(content).encode()
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, TypeError):
        raise bad_request(f"The content of {value['path']} is not base64") from None


def _without_folder(tree: Tree, folder: str) -> dict[str, FileEntry]:
    inside = f"{folder}/" if folder else ""
    kept = {path: entry for path, entry in tree.items() if not path.startswith(inside)}
    if len(kept) == len(tree):
        raise _nothing_to_delete(folder, "folder")
    return kept


def _nothing_to_delete(path: str, noun: str) -> Refusal:
    # huggingface_hub adds its advice about trailing slashes to exactly this sentence
    message = f"A {noun} with this name doesn't exist: {path}"
    return Refusal(404, message, code="EntryNotFound")


def _check_no_file_is_a_folder(tree: Tree) -> None:
    for path in tree:
        parent = path.rpartition("/")[0]
        while parent:
            if parent in tree:
                raise bad_request(f"{parent} cannot be a file and a folder at once")
            parent = parent.rpartition("/")[0]
