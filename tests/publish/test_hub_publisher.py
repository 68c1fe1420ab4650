"""HubPublisher: what becomes of the target's other files, branches, visibility, and of a Hub that stumbles."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hubmerge.errors import PublishError, TargetMovedError, TransferError
from hubmerge.localhub import LocalHub
from hubmerge.publish import HubPublisher, HubTarget
from hubmerge.publish.refusals import GO_ON
from hubmerge.weights.hub_client import RetryPolicy
from tests.publish.places import (
    CARD,
    FIRST,
    INDEX,
    MESSAGE,
    ONE,
    PLAN,
    SECOND,
    STAGING_BRANCH,
    contents,
    new_repo,
    publish,
    stage,
)

SHARDS = {FIRST: b"first" * 100, SECOND: b"second" * 100}
FILES = {"config.json": b'{"new": 1}', INDEX: b"{}", "README.md": CARD}


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(token=hub.token)


@pytest.fixture
def repo() -> str:
    return new_repo("local")


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "wait_seconds", lambda *_: 0.01)


def publisher_to(hub: LocalHub, repo: str, plan: str = PLAN, **target: object) -> HubPublisher:
    return HubPublisher(HubTarget(repo, MESSAGE, **target), fingerprint=plan, token=hub.token)


def fill(api: HfApi, repo: str, files: dict[str, bytes], **details: object) -> str:
    api.create_repo(repo, exist_ok=True, **details)
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    return api.create_commit(repo, operations, commit_message="Fill").oid


def branches(api: HfApi, repo: str) -> list[str]:
    return [branch.name for branch in api.list_repo_refs(repo).branches]


def titles(api: HfApi, repo: str, revision: str = "main") -> list[str]:
    return [commit.title for commit in api.list_repo_commits(repo, revision=revision)]


def test_the_target_gets_one_commit_and_no_branch_stays(hub: LocalHub, api: HfApi, repo: str) -> None:
    published = publish(publisher_to(hub, repo), SHARDS, FILES)
    assert titles(api, repo) == [MESSAGE, "initial commit"]
    assert (published.url, published.commit) == (f"{hub.endpoint}/{repo}", api.model_info(repo).sha)
    assert branches(api, repo) == ["main"]


def test_old_weights_are_replaced_and_foreign_files_stay(hub: LocalHub, api: HfApi, repo: str) -> None:
    old = {
        ONE: b"old",
        FIRST: b"old too",
        "model-00003-of-00003.safetensors": b"old three",
        "notes.txt": b"mine",
        "onnx/model.safetensors": b"another format's",
        "config.json": b'{"old": 1}',
    }
    fill(api, repo, old)
    publish(publisher_to(hub, repo), SHARDS, FILES)
    kept = {"notes.txt": b"mine", "onnx/model.safetensors": b"another format's"}
    assert contents(hub.token, repo) == {**SHARDS, **FILES, **kept}


def test_a_single_file_replaces_shards_and_their_index(hub: LocalHub, api: HfApi, repo: str) -> None:
    publish(publisher_to(hub, repo), SHARDS, FILES)
    publish(publisher_to(hub, repo, plan="another" * 3), {ONE: b"whole"}, {"config.json": b"{}"})
    assert contents(hub.token, repo) == {ONE: b"whole", "config.json": b"{}", "README.md": CARD}


def test_publishing_the_same_again_changes_nothing(hub: LocalHub, api: HfApi, repo: str) -> None:
    first = publish(publisher_to(hub, repo), SHARDS, FILES)
    second = publish(publisher_to(hub, repo), SHARDS, FILES)
    assert second == first
    assert branches(api, repo) == ["main"]


def test_an_existing_file_is_read_at_the_head(hub: LocalHub, api: HfApi, repo: str) -> None:
    fill(api, repo, {"README.md": CARD})
    publisher = publisher_to(hub, repo)
    publisher.open()
    fill(api, repo, {"README.md": CARD + b"Meanwhile"})
    assert publisher.existing("README.md") == CARD
    assert publisher.existing("none.md") is None
    publisher.close()


def test_a_staged_shard_leaves_the_disk(hub: LocalHub, repo: str) -> None:
    publisher = publisher_to(hub, repo)
    publisher.open()
    stage(publisher, ONE, b"content")
    assert [path.name for path in publisher.workspace.iterdir()] == [".lock"]
    publisher.close()


def test_the_workspace_is_where_temporary_files_go(
    hub: LocalHub, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    publisher = publisher_to(hub, repo)
    publisher.open()
    assert publisher.workspace.parent == tmp_path
    publisher.close()


@pytest.mark.parametrize("private", [True, False])
def test_a_new_repo_gets_its_visibility(hub: LocalHub, api: HfApi, repo: str, private: bool) -> None:
    publish(publisher_to(hub, repo, private=private), SHARDS, FILES)
    assert api.model_info(repo).private is private


@pytest.mark.parametrize("private", [True, False])
def test_an_existing_repo_keeps_its_visibility(hub: LocalHub, api: HfApi, repo: str, private: bool) -> None:
    api.create_repo(repo, private=private)
    publish(publisher_to(hub, repo, private=not private), SHARDS, FILES)
    assert api.model_info(repo).private is private


def test_a_new_branch_begins_as_main(hub: LocalHub, api: HfApi, repo: str) -> None:
    fill(api, repo, {"notes.txt": b"mine"})
    before = contents(hub.token, repo)
    published = publish(publisher_to(hub, repo, revision="v2/rc"), SHARDS, FILES)
    assert published.url == f"{hub.endpoint}/{repo}/tree/v2%2Frc"
    assert contents(hub.token, repo, "v2/rc") == {**SHARDS, **FILES, "notes.txt": b"mine"}
    assert contents(hub.token, repo) == before
    assert sorted(branches(api, repo)) == ["main", "v2/rc"]


def test_a_branch_is_published_to_again(hub: LocalHub, api: HfApi, repo: str) -> None:
    publish(publisher_to(hub, repo, revision="dev"), {ONE: b"old"}, {"config.json": b"{}"})
    publish(publisher_to(hub, repo, revision="dev"), SHARDS, FILES)
    assert contents(hub.token, repo, "dev") == {**SHARDS, **FILES}
    assert titles(api, repo, "dev") == [MESSAGE, MESSAGE, "initial commit"]


def test_a_tag_is_no_branch(hub: LocalHub, api: HfApi, repo: str) -> None:
    fill(api, repo, {"notes.txt": b"mine"})
    api.create_tag(repo, tag="v1")
    with pytest.raises(PublishError) as caught:
        publisher_to(hub, repo, revision="v1").open()
    assert str(caught.value) == f"v1 is a tag of {repo}, not a branch"
    assert caught.value.hint == "Name another --revision."


def test_a_target_that_moved_is_left_alone(hub: LocalHub, api: HfApi, repo: str) -> None:
    publisher = publisher_to(hub, repo)
    publisher.open()
    staged = [stage(publisher, name, content) for name, content in SHARDS.items()]
    theirs = fill(api, repo, {"theirs.txt": b"1"})
    with pytest.raises(TargetMovedError) as caught:
        publisher.publish(staged, FILES)
    publisher.close()
    assert str(caught.value) == f"{repo} got another commit while the merge ran; nothing was published"
    assert caught.value.hint == "Run the same command again; it takes up the shards that are finished."
    assert api.model_info(repo).sha == theirs
    again = publisher_to(hub, repo)
    assert list(again.open().values()) == staged
    again.publish(staged, FILES)
    again.close()
    assert contents(hub.token, repo) == {**SHARDS, **FILES, "theirs.txt": b"1"}


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 429}, {"drop_after_bytes": 0}, {"status": 504, "apply_first": True}]
)
@pytest.mark.parametrize("commit", [STAGING_BRANCH.replace("/", "%2F"), "main"])
def test_a_commit_that_fails_is_tried_again(
    hub: LocalHub, api: HfApi, repo: str, commit: str, fault: dict[str, object]
) -> None:
    hub.faults.add(f"POST /api/models/{repo}/commit/{commit}", count=2, **fault)
    published = publish(publisher_to(hub, repo), SHARDS, FILES)
    assert contents(hub.token, repo) == {**SHARDS, **FILES}
    assert titles(api, repo) == [MESSAGE, "initial commit"]
    assert published.commit == api.model_info(repo).sha


@pytest.mark.usefixtures("_no_waiting")
def test_weights_that_are_there_already_do_not_pass_for_a_commit(hub: LocalHub, api: HfApi, repo: str) -> None:
    publish(publisher_to(hub, repo), SHARDS, FILES)
    hub.faults.add(f"POST /api/models/{repo}/commit/main", count=1, status=503)
    publish(publisher_to(hub, repo), SHARDS, {**FILES, "README.md": CARD + b"Newer"})
    assert contents(hub.token, repo)["README.md"] == CARD + b"Newer"


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize(
    "step", ["GET /api/models/{repo}$", "POST /api/repos/create", "GET .*/refs", "POST .*/branch/"]
)
@pytest.mark.parametrize("fault", [{"status": 502}, {"drop_after_bytes": 0}])
def test_opening_survives_a_stumble(hub: LocalHub, repo: str, step: str, fault: dict[str, int]) -> None:
    hub.faults.add(step.format(repo=repo), count=1, **fault)
    publish(publisher_to(hub, repo), SHARDS, FILES)
    assert contents(hub.token, repo) == {**SHARDS, **FILES}


@pytest.mark.usefixtures("_no_waiting")
def test_a_staging_branch_that_cannot_be_removed_is_no_failure(hub: LocalHub, api: HfApi, repo: str) -> None:
    hub.faults.add("DELETE .*/branch/", status=500)
    publish(publisher_to(hub, repo), SHARDS, FILES)
    assert branches(api, repo) == ["main", STAGING_BRANCH]


@pytest.mark.usefixtures("_no_waiting")
def test_a_commit_that_never_succeeds_is_one_sentence(hub: LocalHub, api: HfApi, repo: str) -> None:
    hub.faults.add(f"POST /api/models/{repo}/commit/main", status=503)
    with pytest.raises(PublishError) as caught:
        publish(publisher_to(hub, repo), SHARDS, FILES)
    assert str(caught.value) == f"could not publish to {repo}: the Hub answers HTTP 503"
    assert caught.value.hint == "Run the same command again; it goes on from what has arrived."
    assert titles(api, repo) == ["initial commit"]


@pytest.mark.usefixtures("_no_waiting")
def test_a_hub_that_hangs_up_is_one_sentence(hub: LocalHub, repo: str) -> None:
    hub.faults.add(f"POST /api/models/{repo}/commit/", drop_after_bytes=0)
    with pytest.raises(PublishError, match=rf"^could not upload {ONE} to {repo}: RemoteProtocolError: peer closed"):
        publish(publisher_to(hub, repo), {ONE: b"content"}, FILES)


def test_a_staging_branch_that_vanished_is_one_sentence(hub: LocalHub, api: HfApi, repo: str) -> None:
    publisher = publisher_to(hub, repo)
    publisher.open()
    staged = stage(publisher, ONE, b"content")
    api.delete_branch(repo, branch=STAGING_BRANCH)
    with pytest.raises(PublishError, match=rf"^could not publish to {repo}: the Hub answers HTTP 404"):
        publisher.publish([staged], FILES)
    publisher.close()


def test_a_card_that_the_hub_refuses_is_one_sentence(hub: LocalHub, repo: str) -> None:
    with pytest.raises(PublishError, match=rf"^could not publish to {repo}: ValueError: Invalid metadata in README.md"):
        publish(publisher_to(hub, repo), {ONE: b"content"}, {"README.md": b"---\nlicense: 1\n---\n"})


def test_what_the_hub_says_of_the_card_is_not_said_a_second_time(
    hub: LocalHub, repo: str, recwarn: pytest.WarningsRecorder
) -> None:
    publish(publisher_to(hub, repo), {ONE: b"content"}, {"README.md": b"A card without metadata"})
    assert list(recwarn) == []


def test_offline_mode_is_named(hub: LocalHub, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TransferError) as caught:
        publisher_to(hub, repo).open()
    assert str(caught.value) == "the Hub cannot be asked because offline mode is on"


@pytest.mark.parametrize("branch", ["", "a b", "..", "-x", "v1:2"])
def test_a_name_that_no_branch_can_have_is_refused_before_a_repo_is_made(
    hub: LocalHub, api: HfApi, repo: str, branch: str
) -> None:
    with pytest.raises(PublishError) as caught:
        publisher_to(hub, repo, revision=branch).open()
    assert (str(caught.value), caught.value.hint) == (f"{branch!r} cannot be a branch", "Name another --revision.")
    assert not api.repo_exists(repo)


def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(repo: str) -> None:
    with pytest.raises(PublishError) as caught:
        HubPublisher(HubTarget(repo, MESSAGE), fingerprint=PLAN, token="hf_secret\n").open()
    assert str(caught.value).startswith("the token is empty or has characters that no token has")
    assert "secret" not in f"{caught.value}{caught.value.hint}"


def test_a_proxy_that_answers_in_place_of_the_hub_is_one_sentence(hub: LocalHub, repo: str) -> None:
    hub.faults.add("POST /api/repos/create", status=200, body="<html>Log in</html>")
    with pytest.raises(TransferError) as caught:
        publisher_to(hub, repo).open()
    assert str(caught.value) == f"{hub.endpoint} does not answer for {repo} as a Hub does"


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize(("status", "hint"), [(413, None), (404, GO_ON), (503, GO_ON)])
def test_a_refusal_that_would_come_again_is_not_worth_another_run(
    hub: LocalHub, repo: str, status: int, hint: str | None
) -> None:
    hub.faults.add(f"POST /api/models/{repo}/commit/", status=status)
    with pytest.raises(PublishError) as caught:
        publish(publisher_to(hub, repo), {ONE: b"content"}, FILES)
    assert caught.value.hint == hint
