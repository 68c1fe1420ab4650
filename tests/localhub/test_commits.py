"""Commits, branches and trees, through HfApi."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import BadRequestError, EntryNotFoundError, HfHubHTTPError
from huggingface_hub.hf_api import RepoFolder

from hubmerge.localhub import LocalHub
from tests.localhub.conftest import send

WEIGHTS = bytes(range(256)) * 1000


def commit(api: HfApi, repo: str, *operations: object, **details: object) -> str:
    return str(api.create_commit(repo, list(operations), commit_message="change", **details).oid)


def add(path: str, data: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, data)


def test_one_commit_adds_copies_and_deletes(api: HfApi, repo: str) -> None:
    commit(api, repo, add("a.json", b"{}"), add("w.safetensors", WEIGHTS), add("old/x", b"x"), add("old/y", b"y"))
    commit(
        api,
        repo,
        CommitOperationCopy("w.safetensors", "copy.safetensors"),
        CommitOperationCopy("a.json", "b.json"),
        CommitOperationDelete("a.json"),
        CommitOperationDelete("old/"),
    )
    assert api.list_repo_files(repo) == [".gitattributes", "b.json", "copy.safetensors", "w.safetensors"]
    assert Path(hf_hub_download(repo, "copy.safetensors")).read_bytes() == WEIGHTS


def test_a_commit_on_a_head_that_moved_is_refused(api: HfApi, repo: str) -> None:
    old = api.model_info(repo).sha
    new = commit(api, repo, add("a", b"1"), parent_commit=old)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        commit(api, repo, add("b", b"2"), parent_commit=old)
    assert caught.value.response.status_code == 412
    assert api.model_info(repo).sha == new


def test_a_commit_that_fails_changes_nothing(api: HfApi, repo: str) -> None:
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist: absent"):
        commit(api, repo, add("a", b"1"), CommitOperationDelete("absent"))
    assert api.list_repo_files(repo) == [".gitattributes"]


def test_a_large_file_that_was_never_uploaded_is_named(hub: LocalHub, token: str, repo: str) -> None:
    body = b'{"key":"header","value":{"summary":"s"}}\n'
    body += b'{"key":"lfsFile","value":{"path":"w.bin","algo":"sha256","oid":"%s","size":3}}\n' % (b"ab" * 32)
    answer = send(hub, "POST", f"/api/models/{repo}/commit/main", token=token, body=body)
    assert answer.status == 400
    assert answer.headers["X-Error-Message"] == f"w.bin: no file with sha256 {'ab' * 32} was uploaded to {repo}"


def test_files_uploaded_before_are_committed_without_their_bytes(
    api: HfApi, repo: str, hub: LocalHub, token: str
) -> None:
    operation = add("w.bin", WEIGHTS)
    api.preupload_lfs_files(repo, [operation])
    sha256 = operation.upload_info.sha256.hex().encode()
    body = b'{"key":"header","value":{"summary":"s"}}\n'
    body += b'{"key":"lfsFile","value":{"path":"w.bin","algo":"sha256","oid":"%s"}}\n' % sha256
    assert send(hub, "POST", f"/api/models/{repo}/commit/main", token=token, body=body).status == 200
    assert Path(hf_hub_download(repo, "w.bin")).read_bytes() == WEIGHTS


def test_an_unchanged_file_makes_no_commit(api: HfApi, repo: str) -> None:
    first = commit(api, repo, add("a", b"1"), add("w.bin", WEIGHTS))
    assert commit(api, repo, add("a", b"1"), add("w.bin", WEIGHTS)) == first


def test_gitignore_is_heeded(api: HfApi, repo: str) -> None:
    commit(api, repo, add(".gitignore", b"# noise\n*.log\nbuild/\n"))
    commit(api, repo, add("x.log", b"1"), add("build/y", b"2"), add("kept", b"3"))
    assert api.list_repo_files(repo) == [".gitattributes", ".gitignore", "kept"]


def test_branches_and_tags_point_to_commits(api: HfApi, repo: str) -> None:
    first = api.model_info(repo).sha
    api.create_branch(repo, branch="topic/one")
    second = commit(api, repo, add("a", b"1"), revision="topic/one")
    api.create_tag(repo, tag="v1", revision="topic/one")
    refs = api.list_repo_refs(repo)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "topic/one": second}
    assert [(ref.name, ref.ref, ref.target_commit) for ref in refs.tags] == [("v1", "refs/tags/v1", second)]
    assert Path(hf_hub_download(repo, "a", revision="v1")).read_bytes() == b"1"
    with pytest.raises(HfHubHTTPError, match="Reference already exists: v1"):
        api.create_tag(repo, tag="v1")
    api.delete_tag(repo, tag="v1")
    api.delete_branch(repo, branch="topic/one")
    assert [ref.name for ref in api.list_repo_refs(repo).branches] == ["main"]
    assert api.model_info(repo, revision=second).sha == second


def test_main_cannot_be_deleted(api: HfApi, repo: str) -> None:
    with pytest.raises(BadRequestError, match="The main branch cannot be deleted"):
        api.delete_branch(repo, branch="main")


def test_a_staging_branch_is_published_by_copies(api: HfApi, repo: str) -> None:
    api.create_branch(repo, branch="staging")
    commit(api, repo, add("w.safetensors", WEIGHTS), revision="staging")
    copy = CommitOperationCopy("w.safetensors", "w.safetensors", src_revision="staging")
    commit(api, repo, copy, add("README.md", b"---\nlicense: mit\n---\n"))
    assert Path(hf_hub_download(repo, "w.safetensors")).read_bytes() == WEIGHTS


def test_large_files_are_copied_between_repos_by_reference(api: HfApi, repo: str, hub: LocalHub) -> None:
    api.create_repo("ann/source", exist_ok=True)
    commit(api, "ann/source", add("w.safetensors", WEIGHTS))
    hub.requests.clear()
    commit(
        api,
        repo,
        CommitOperationCopy("w.safetensors", "w.safetensors", src_repo_id="ann/source", src_repo_type="model"),
    )
    assert Path(hf_hub_download(repo, "w.safetensors")).read_bytes() == WEIGHTS
    assert not hub.requests.matching("(PUT|POST) /c(dn|as)/")


def test_a_squashed_branch_keeps_its_files(api: HfApi, repo: str) -> None:
    commit(api, repo, add("a", b"1"))
    api.super_squash_history(repo, commit_message="all in one")
    assert [each.title for each in api.list_repo_commits(repo)] == ["all in one"]
    assert api.list_repo_files(repo) == [".gitattributes", "a"]


def test_a_tree_is_listed_by_folder_and_by_page(lfs_api: HfApi) -> None:
    repo = lfs_api.create_repo("local/tree", exist_ok=True).repo_id
    commit(lfs_api, repo, *(add(path, path.encode()) for path in ("a", "b/c", "b/d/e", "b/d/f")))
    assert [each.path for each in lfs_api.list_repo_tree(repo)] == [".gitattributes", "a", "b"]
    assert [each.path for each in lfs_api.list_repo_tree(repo, "b/d")] == ["b/d/e", "b/d/f"]
    everything = [".gitattributes", "a", "b", "b/c", "b/d", "b/d/e", "b/d/f"]
    assert [each.path for each in lfs_api.list_repo_tree(repo, recursive=True)] == everything
    with pytest.raises(EntryNotFoundError):
        list(lfs_api.list_repo_tree(repo, "nowhere"))


def test_expanded_entries_name_their_last_commit(api: HfApi, repo: str) -> None:
    first = commit(api, repo, add("a", b"1"), add("f/b", b"1"))
    second = commit(api, repo, add("f/b", b"2"))
    entries = {each.path: each for each in api.list_repo_tree(repo, recursive=True, expand=True)}
    last = {path: each.last_commit.oid for path, each in entries.items() if path != ".gitattributes"}
    assert last == {"a": first, "f": second, "f/b": second}


def test_paths_info_omits_what_is_not_there(api: HfApi, repo: str) -> None:
    commit(api, repo, add("f/w.bin", WEIGHTS))
    found = {each.path: each for each in api.get_paths_info(repo, ["f", "f/w.bin", "absent"])}
    assert sorted(found) == ["f", "f/w.bin"]
    assert isinstance(found["f"], RepoFolder)
    assert (found["f/w.bin"].size, found["f/w.bin"].lfs.size) == (len(WEIGHTS), len(WEIGHTS))
    assert found["f/w.bin"].xet_hash is not None


def test_upload_folder_and_snapshot_are_inverse(api: HfApi, repo: str, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "sub/w.safetensors": WEIGHTS, "empty": b"", "sub/note.md": b"# x\n"}
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    folder = Path(snapshot_download(repo))
    assert {path: (folder / path).read_bytes() for path in files} == files
    assert api.verify_repo_checksums(repo, local_dir=tmp_path).mismatches == []


def test_a_space_in_a_path_and_letters_beyond_ascii_are_fine(api: HfApi, repo: str) -> None:
    commit(api, repo, add("ordner ä/datei #1?.bin", WEIGHTS))
    assert Path(hf_hub_download(repo, "ordner ä/datei #1?.bin")).read_bytes() == WEIGHTS


def test_commits_at_the_same_time_all_land(api: HfApi, repo: str) -> None:
    names = [f"file-{number}" for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: commit(api, repo, add(name, name.encode())), names))
    assert sorted(api.list_repo_files(repo)) == sorted([".gitattributes", *names])
    assert len(api.list_repo_commits(repo)) == 13
