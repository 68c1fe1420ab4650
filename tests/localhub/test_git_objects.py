"""Ids that git agrees with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hubmerge.localhub.git_objects import commit_id, lfs_pointer, object_id, tree_ids

FILES = {"a.txt": b"a\n", "a/b.txt": b"b\n", "a/c/d.txt": b"", "a-b": b"sorts before a/\n", "z/y": b"\0\xff"}


def git(folder: Path, *words: str) -> str:
    fixed = {"NAME": "ann", "EMAIL": "ann@localhub", "DATE": "1700000000 +0000"}
    variables = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in fixed.items()}
    done = subprocess.run(
        ["git", *words], cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_blobs_trees_and_commits_have_the_ids_of_git(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    files = {path: data for path, data in FILES.items() if path != "a.txt"} | {"a.txt": FILES["a.txt"]}
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "title\n\nmessage")
    trees = tree_ids({path: object_id("blob", data) for path, data in files.items()})
    assert trees == {folder: git(tmp_path, "rev-parse", f"HEAD:{folder}") for folder in ("", "a", "a/c", "z")}
    oid = commit_id(tree=trees[""], parent=None, author="ann", unix_seconds=1_700_000_000, message="title\n\nmessage")
    assert oid == git(tmp_path, "rev-parse", "HEAD")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "second")
    second = commit_id(tree=trees[""], parent=oid, author="ann", unix_seconds=1_700_000_000, message="second")
    assert second == git(tmp_path, "rev-parse", "HEAD")


def test_an_empty_tree_has_the_well_known_id() -> None:
    assert tree_ids({}) == {"": "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}


def test_a_pointer_is_the_text_that_git_lfs_writes() -> None:
    pointer = lfs_pointer("4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393", 12345)
    assert pointer == (
        b"version https://git-lfs.github.com/spec/v1\n"
        b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
        b"size 12345\n"
    )
