"""Discussions and pull requests, through HfApi."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import BadRequestError, HfHubHTTPError


def put(api: HfApi, repo: str, path: str, data: bytes, **details: object) -> object:
    return api.create_commit(repo, [CommitOperationAdd(path, data)], commit_message=f"change {path}", **details)


def test_a_stranger_proposes_and_the_owner_merges(api: HfApi, stranger: HfApi, repo: str) -> None:
    with pytest.raises(HfHubHTTPError, match="pass `create_pr=1` to open a pull request instead"):
        put(stranger, repo, "a.bin", b"\0" * 600)
    proposed = put(stranger, repo, "a.bin", b"\0" * 600, create_pr=True)
    assert (proposed.pr_num, proposed.pr_revision) == (1, "refs/pr/1")
    assert api.list_repo_files(repo) == [".gitattributes"]
    assert Path(hf_hub_download(repo, "a.bin", revision="refs/pr/1")).read_bytes() == b"\0" * 600
    put(stranger, repo, "b", b"2", revision="refs/pr/1")
    api.merge_pull_request(repo, 1)
    assert api.list_repo_files(repo) == [".gitattributes", "a.bin", "b"]
    details = api.get_discussion_details(repo, 1)
    assert (details.status, details.merge_commit_oid) == ("merged", api.model_info(repo).sha)
    assert [commit.title for commit in api.list_repo_commits(repo)] == ["change a.bin (#1)", "initial commit"]
    assert [event.type for event in details.events] == ["comment", "commit", "commit", "status-change"]


def test_a_draft_must_be_opened_before_it_is_merged(api: HfApi, repo: str) -> None:
    draft = api.create_pull_request(repo, "A draft", description="soon")
    assert (draft.status, draft.is_pull_request, draft.events[0].content) == ("draft", True, "soon")
    put(api, repo, "a", b"1", revision=f"refs/pr/{draft.num}")
    with pytest.raises(
        BadRequestError, match="This pull request is a draft: mark it as ready for review before merging"
    ):
        api.merge_pull_request(repo, draft.num)
    api.change_discussion_status(repo, draft.num, "open")
    api.merge_pull_request(repo, draft.num)
    assert "a" in api.list_repo_files(repo)
    with pytest.raises(BadRequestError, match="This pull request is merged"):
        api.merge_pull_request(repo, draft.num)


def test_conflicts_are_found_and_keep_main_as_it_is(api: HfApi, repo: str) -> None:
    put(api, repo, "a", b"theirs", create_pr=True)
    head = put(api, repo, "a", b"ours").oid
    assert api.get_discussion_details(repo, 1).conflicting_files == ["a"]
    with pytest.raises(HfHubHTTPError, match="This pull request has conflicts in a") as caught:
        api.merge_pull_request(repo, 1)
    assert caught.value.response.status_code == 409
    assert api.model_info(repo).sha == head


def test_other_files_that_changed_meanwhile_are_kept(api: HfApi, repo: str) -> None:
    put(api, repo, "theirs", b"1", create_pr=True)
    put(api, repo, "ours", b"2")
    api.merge_pull_request(repo, 1)
    assert api.list_repo_files(repo) == [".gitattributes", "ours", "theirs"]


def test_the_diff_of_a_pull_request_is_a_patch(api: HfApi, repo: str) -> None:
    put(api, repo, "a.txt", b"one\ntwo\n")
    put(api, repo, "a.txt", b"one\nthree\n", create_pr=True)
    assert api.get_discussion_details(repo, 1).diff == (
        "diff --git a/a.txt b/a.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"
    )


@pytest.mark.filterwarnings("ignore:Hidden comments:UserWarning")
def test_a_discussion_is_held_and_closed(api: HfApi, stranger: HfApi, repo: str) -> None:
    opened = stranger.create_discussion(repo, "A question", description="Why?")
    answer = api.comment_discussion(repo, opened.num, "Because.")
    assert api.edit_discussion_comment(repo, opened.num, answer.id, "That is why.").content == "That is why."
    with pytest.raises(HfHubHTTPError, match="Only its author may change a comment"):
        stranger.edit_discussion_comment(repo, opened.num, answer.id, "x")
    assert api.rename_discussion(repo, opened.num, "An answer").new_title == "An answer"
    assert api.change_discussion_status(repo, opened.num, "closed", comment="done").new_status == "closed"
    api.hide_discussion_comment(repo, opened.num, answer.id)
    details = api.get_discussion_details(repo, opened.num)
    assert (details.title, details.status, details.author) == ("An answer", "closed", "bob")
    assert [each.content for each in details.events if each.type == "comment"] == ["Why?", "", "done"]


def test_discussions_are_listed_by_kind_and_status(api: HfApi, repo: str) -> None:
    api.create_discussion(repo, "Talk")
    put(api, repo, "a", b"1", create_pr=True)
    api.change_discussion_status(repo, 1, "closed")
    assert [each.num for each in api.get_repo_discussions(repo)] == [2, 1]
    assert [each.num for each in api.get_repo_discussions(repo, discussion_type="pull_request")] == [2]
    assert [each.num for each in api.get_repo_discussions(repo, discussion_status="closed")] == [1]
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert [ref.name for ref in refs.pull_requests] == ["refs/pr/2"]


def test_a_stranger_may_not_merge_or_close(api: HfApi, stranger: HfApi, repo: str) -> None:
    put(api, repo, "a", b"1", create_pr=True)
    with pytest.raises(HfHubHTTPError, match=f"You don't have the rights to write to {repo}"):
        stranger.merge_pull_request(repo, 1)
    with pytest.raises(HfHubHTTPError, match="Only its author and those who may write to the repo may do this"):
        stranger.change_discussion_status(repo, 1, "closed")


def test_a_folder_is_proposed_as_a_draft(api: HfApi, repo: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 600)
    proposed = api.upload_folder(repo_id=repo, folder_path=tmp_path, create_pr=True)
    assert api.list_repo_files(repo, revision=proposed.pr_revision) == [".gitattributes", "w.bin"]
    assert api.list_repo_files(repo) == [".gitattributes"]
