"""What may be a repo id, a path in a repo, or a branch."""

from __future__ import annotations

import pytest

from hubmerge.localhub.names import check_file_path, check_ref_name, check_repo_id
from hubmerge.localhub.refusals import Refusal


@pytest.mark.parametrize("repo_id", ["gpt2", "a/b", "TheBloke/Llama-2-7B-GGUF", "org_1/x.y", "mlabonne/Monarch-7B"])
def test_repo_ids_of_the_hub_are_taken(repo_id: str) -> None:
    assert check_repo_id(repo_id) == repo_id


@pytest.mark.parametrize(
    "repo_id",
    [
        "",
        "/",
        "a/",
        "/a",
        "..",
        "../x",
        "a/..",
        "a/b/c",
        "a--b/c",
        "a/b..c",
        "-a/b",
        "a/b.",
        "a/b.git",
        "a/b\n",
        "a/b\0",
        "a\\b",
        "a b",
    ],
)
def test_other_repo_ids_are_refused(repo_id: str) -> None:
    with pytest.raises(Refusal, match="Invalid repo id"):
        check_repo_id(repo_id)


@pytest.mark.parametrize(
    "path", ["config.json", "a/b/c.txt", ".gitattributes", "name with spaces", "ü.md", "a..b", "..."]
)
def test_relative_paths_are_taken(path: str) -> None:
    assert check_file_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "a\\b",
        "..\\x",
        "a\0b",
        "a\nb",
        ".git/config",
        "a/.git/x",
        "x" * 1025,
    ],
)
def test_paths_that_lead_out_of_a_repo_are_refused(path: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_file_path(path)
    assert (caught.value.status, caught.value.message) == (400, f"Invalid path in repo: {path!r}")


@pytest.mark.parametrize("name", ["main", "feature/x", "v1.0", "hubmerge/job-1"])
def test_branch_names_of_git_are_taken(name: str) -> None:
    assert check_ref_name(name) == name


@pytest.mark.parametrize("name", ["", "refs/pr/1", "a..b", "a/", "a.lock", "-a", "a b", "../a", "0" * 40, "a\n"])
def test_names_that_git_or_the_hub_reads_otherwise_are_refused(name: str) -> None:
    with pytest.raises(Refusal, match="Invalid reference name"):
        check_ref_name(name)
