"""Merges proposed as pull requests, by owners and by strangers."""

from __future__ import annotations

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import PublishError
from hubmerge.localhub import LocalHub
from hubmerge.publish import HubPublisher, HubTarget
from tests.publish.places import CARD, FIRST, INDEX, MESSAGE, ONE, PLAN, SECOND, contents, new_repo, publish, stage

SHARDS = {FIRST: b"first" * 100, SECOND: b"second" * 100}
FILES = {"config.json": b'{"new": 1}', INDEX: b"{}", "README.md": CARD}


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(token=hub.token)


@pytest.fixture(scope="module")
def stranger(hub: LocalHub) -> str:
    return hub.create_user("passer-by")


@pytest.fixture
def repo(api: HfApi) -> str:
    """An older model."""
    repo = new_repo("local")
    api.create_repo(repo)
    api.upload_file(path_or_fileobj=b"old", path_in_repo=ONE, repo_id=repo)
    return repo


def publisher_to(repo: str, token: str) -> HubPublisher:
    return HubPublisher(HubTarget(repo, MESSAGE, create_pr=True), fingerprint=PLAN, token=token)


@pytest.mark.parametrize("by", ["owner", "stranger"])
def test_a_pull_request_leaves_main_alone_until_it_is_merged(
    hub: LocalHub, api: HfApi, repo: str, stranger: str, by: str
) -> None:
    head = api.model_info(repo).sha
    published = publish(publisher_to(repo, hub.token if by == "owner" else stranger), SHARDS, FILES)
    assert published.url == f"{hub.endpoint}/{repo}/discussions/1"
    details = api.get_discussion_details(repo, 1)
    assert (details.title, details.status) == (MESSAGE, "open")
    assert api.model_info(repo, revision="refs/pr/1").sha == published.commit
    assert api.model_info(repo).sha == head
    api.merge_pull_request(repo, 1)
    assert contents(hub.token, repo) == {**SHARDS, **FILES}


def test_shards_are_staged_in_a_draft_that_a_second_run_takes_up(
    hub: LocalHub, api: HfApi, repo: str, stranger: str
) -> None:
    first = publisher_to(repo, stranger)
    first.open()
    staged = stage(first, FIRST, SHARDS[FIRST])
    first.close()
    assert [pull.status for pull in api.get_repo_discussions(repo)] == ["draft"]
    second = publisher_to(repo, stranger)
    assert second.open() == {FIRST: staged}
    second.publish([staged, stage(second, SECOND, SHARDS[SECOND])], FILES)
    second.close()
    assert [(pull.num, pull.status) for pull in api.get_repo_discussions(repo)] == [(1, "open")]
    api.merge_pull_request(repo, 1)
    assert contents(hub.token, repo) == {**SHARDS, **FILES}


def test_the_draft_of_somebody_else_is_not_taken_up(hub: LocalHub, repo: str, stranger: str) -> None:
    theirs = publisher_to(repo, stranger)
    theirs.open()
    stage(theirs, FIRST, b"other" * 100)
    theirs.close()
    mine = publisher_to(repo, hub.token)
    assert mine.open() == {}
    published = mine.publish([stage(mine, name, content) for name, content in SHARDS.items()], FILES)
    mine.close()
    assert published.url.endswith("/discussions/2")


def test_main_may_move_between_two_runs(hub: LocalHub, api: HfApi, repo: str) -> None:
    first = publisher_to(repo, hub.token)
    first.open()
    staged = [stage(first, name, content) for name, content in SHARDS.items()]
    first.close()
    api.upload_file(path_or_fileobj=b"newer", path_in_repo="model-00001-of-00001.safetensors", repo_id=repo)
    second = publisher_to(repo, hub.token)
    second.open()
    second.publish(staged, FILES)
    second.close()
    assert contents(hub.token, repo, "refs/pr/1") == {**SHARDS, **FILES}


def test_a_second_pull_request_is_another_one(hub: LocalHub, repo: str) -> None:
    urls = [publish(publisher_to(repo, hub.token), SHARDS, FILES).url for _ in range(2)]
    assert [url.rsplit("/", 1)[1] for url in urls] == ["1", "2"]


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop_after_bytes": 0}, {"status": 504, "apply_first": True}])
def test_a_commit_whose_answer_is_lost_counts(hub: LocalHub, api: HfApi, repo: str, fault: dict[str, object]) -> None:
    publisher = publisher_to(repo, hub.token)
    publisher.open()
    staged = [stage(publisher, name, content) for name, content in SHARDS.items()]
    hub.faults.add(f"POST /api/models/{repo}/commit/refs%2Fpr%2F1", count=1, **fault)
    published = publisher.publish(staged, FILES)
    publisher.close()
    assert published.commit == api.model_info(repo, revision="refs/pr/1").sha
    assert contents(hub.token, repo, "refs/pr/1") == {**SHARDS, **FILES}


def test_a_pull_request_goes_to_main(hub: LocalHub, api: HfApi, repo: str) -> None:
    target = HubTarget(repo, MESSAGE, revision="dev", create_pr=True)
    with pytest.raises(PublishError) as caught:
        HubPublisher(target, fingerprint=PLAN, token=hub.token).open()
    assert str(caught.value) == "a pull request goes to main"
    assert caught.value.hint == "Leave out --revision or --create-pr."
    assert [branch.name for branch in api.list_repo_refs(repo).branches] == ["main"]
