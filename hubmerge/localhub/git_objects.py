"""The ids that git would give: blobs, LFS pointers, trees and commits. Pure.

Format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects; pointers:
https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def object_id(kind: str, data: bytes) -> str:
    """Returns the 40 hex digits that git gives to an object of this kind."""
    header = f"{kind} {len(data)}\0".encode()
    return hashlib.sha1(header + data, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size_bytes: int) -> bytes:
    """Returns the text file that stands in git for a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n".encode()


def tree_ids(blob_ids: Mapping[str, str]) -> dict[str, str]:
    """Returns the tree id of every folder, the root under "", for files given as path → blob id."""
    folders: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, blob_id in blob_ids.items():
        _children(folders, _parent(path))[path.rpartition("/")[2]] = ("100644", blob_id)
    ids: dict[str, str] = {}
    for folder in sorted(folders, key=lambda name: (name.count("/") + bool(name), name), reverse=True):
        ids[folder] = object_id("tree", _tree_bytes(folders[folder]))
        if folder:
            folders[_parent(folder)][folder.rpartition("/")[2]] = ("40000", ids[folder])
    return ids


def commit_id(*, tree: str, parent: str | None, author: str, unix_seconds: int, message: str) -> str:
    """Returns the id of a commit written by one person at one time, in UTC."""
    person = f"{author} <{author}@localhub> {unix_seconds} +0000"
    lines = [f"tree {tree}", *([f"parent {parent}"] if parent else []), f"author {person}", f"committer {person}"]
    return object_id("commit", ("\n".join(lines) + f"\n\n{message}\n").encode())


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _children(folders: dict[str, dict[str, tuple[str, str]]], folder: str) -> dict[str, tuple[str, str]]:
    if folder not in folders:
        folders[folder] = {}
        _children(folders, _parent(folder))
    return folders[folder]


def _tree_bytes(children: Mapping[str, tuple[str, str]]) -> bytes:
    # git sorts a folder as if its name ended in a slash
    names = sorted(children, key=lambda name: f"{name}/".encode() if children[name][0] == "40000" else name.encode())
    return b"".join(f"{children[name][0]} {name}\0".encode() + bytes.fromhex(children[name][1]) for name in names)
