"""Two runs of one merge at once, and targets that change or vanish meanwhile."""

from __future__ import annotations

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import PublishError
from hubmerge.localhub import LocalHub
from hubmerge.publish import HubPublisher, HubTarget
from hubmerge.weights.hub_client import RetryPolicy
from tests.publish.places import CARD, FIRST, MESSAGE, PLAN, SECOND, STAGING_BRANCH, contents, new_repo, stage

SHARDS = {FIRST: b"first" * 1000, SECOND: b"second" * 2000}
FILES = {"config.json": b"{}\n", "README.md": CARD}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "wait_seconds", lambda *_: 0.01)


@pytest.fixture
def repo() -> str:
    return new_repo("local")


def opened(hub: LocalHub, repo: str) -> HubPublisher:
    publisher = HubPublisher(HubTarget(repo, MESSAGE), fingerprint=PLAN, token=hub.token)
    publisher.open()
    return publisher


def test_of_two_runs_that_end_together_both_name_the_one_commit(hub: LocalHub, repo: str) -> None:
    runs = [opened(hub, repo), opened(hub, repo)]
    staged = [[stage(run, name, content) for name, content in SHARDS.items()] for run in runs]
    commits = [run.publish(shards, FILES).commit for run, shards in zip(runs, staged, strict=True)]
    assert commits[0] == commits[1]
    assert contents(hub.token, repo) == SHARDS | FILES
    assert len(HfApi(token=hub.token).list_repo_commits(repo)) == 2


def test_a_run_that_was_overtaken_while_it_published_names_the_commit_of_the_other(hub: LocalHub, repo: str) -> None:
    runs = [opened(hub, repo), opened(hub, repo)]
    staged = [[stage(run, name, content) for name, content in SHARDS.items()] for run in runs]
    hub.faults.add(f"POST /api/models/{repo}/commit/main", status=412, apply_first=True, count=1)
    commit = runs[0].publish(staged[0], FILES).commit
    assert runs[1].publish(staged[1], FILES).commit == commit == HfApi(token=hub.token).model_info(repo).sha


def test_a_run_that_was_overtaken_while_it_staged_says_so(hub: LocalHub, repo: str) -> None:
    winner, loser = opened(hub, repo), opened(hub, repo)
    stage(loser, FIRST, SHARDS[FIRST])
    winner.publish([stage(winner, name, content) for name, content in SHARDS.items()], FILES)
    with pytest.raises(PublishError) as caught:
        stage(loser, SECOND, SHARDS[SECOND])
    assert str(caught.value) == f"another run of the same merge has published it to {repo} while this one ran"
    assert caught.value.hint == f"Nothing is left to do: {hub.endpoint}/{repo}"


def test_two_commits_to_the_staging_branch_at_once_are_no_failure(hub: LocalHub, repo: str) -> None:
    publisher = opened(hub, repo)
    hub.faults.add(f"POST /api/models/{repo}/commit/{STAGING_BRANCH.replace('/', '%2F')}", status=412, count=2)
    assert stage(publisher, FIRST, SHARDS[FIRST]).filename == FIRST


@pytest.mark.parametrize("when", ["staging", "publishing"])
def test_a_target_that_is_deleted_meanwhile_is_named_as_such(hub: LocalHub, repo: str, when: str) -> None:
    publisher = opened(hub, repo)
    staged = [stage(publisher, FIRST, SHARDS[FIRST])]
    HfApi(token=hub.token).delete_repo(repo)
    with pytest.raises(PublishError) as caught:
        stage(publisher, SECOND, SHARDS[SECOND]) if when == "staging" else publisher.publish(staged, FILES)
    publisher.close()
    assert str(caught.value) == (
        f"{repo} is gone: it was deleted or renamed while the merge ran, or the token lost its access"
    )
