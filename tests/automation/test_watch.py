"""Merges that the Hub keeps up to date: what it would start, and when."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from click.testing import CliRunner, Result
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_and_push
from hubmerge.version import __version__
from tests.checkpoints import push_folder
from tests.end_to_end.merges import OPTIONS, Parents, linear, new_repo, write_parents

COMMAND = ["uv", "run", "--with", f"hubmerge=={__version__}", "hubmerge", "republish"]


webhooks = pytest.mark.skipif(
    "secrets" not in inspect.signature(HfApi.create_webhook).parameters, reason="huggingface_hub 1.x"
)


@pytest.fixture(autouse=True)
def _logged_in(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)


@pytest.fixture(scope="module")
def own_parents(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Parents:
    return write_parents(tmp_path_factory.mktemp("watched"), hub.token, owner="local")


@pytest.fixture(scope="module")
def merged(hub: LocalHub, own_parents: Parents) -> str:
    repo = new_repo()
    merge_and_push(own_parents.recipe(), repo, target_token=hub.token, options=OPTIONS)
    return repo


@pytest.fixture(autouse=True)
def _nothing_watched(api: HfApi) -> Any:
    yield
    for hook in api.list_webhooks():
        api.delete_webhook(hook.id)
    for job in api.list_scheduled_jobs():
        api.delete_scheduled_job(scheduled_job_id=job.id)


def watch(*words: str) -> Result:
    return CliRunner().invoke(main, ["watch", *words])


@webhooks
def test_a_commit_to_a_parent_starts_the_job(merged: str, own_parents: Parents, api: HfApi, hub: LocalHub) -> None:
    result = watch(merged, "--flavor", "cpu-xl")
    (hook,) = api.list_webhooks()
    parents = ", ".join(sorted(own_parents.repos))
    assert (result.exit_code, result.stdout) == (0, f"webhook {hook.id}: on a commit to {parents}\n")
    push_folder(hub.token, own_parents.repos[1], own_parents.folders[0])
    started = [job for job in api.list_jobs(namespace="local") if job.initiator.id == hook.id]
    assert started
    for job in started:
        assert (job.command, job.flavor) == ([*COMMAND, merged, "--if-changed"], "cpu-xl")
        assert set(job.secrets) == {"HF_TOKEN"}


@webhooks
def test_watching_again_replaces_the_webhook(merged: str, api: HfApi) -> None:
    first, second = (json.loads(watch(merged, "--json").stdout)[0]["id"] for _ in range(2))
    assert [hook.id for hook in api.list_webhooks()] == [second] != [first]


@webhooks
def test_a_schedule_replaces_the_webhook_and_is_listed(merged: str, api: HfApi) -> None:
    watch(merged)
    watch(merged, "--schedule", "@daily")
    (scheduled,) = api.list_scheduled_jobs()
    assert (scheduled.schedule, scheduled.job_spec.command) == ("@daily", [*COMMAND, merged, "--if-changed"])
    assert not api.list_webhooks()
    assert watch(merged, "--list").stdout == f"schedule {scheduled.id}: on @daily\n"


@webhooks
def test_what_watches_another_merge_is_left_alone(merged: str, api: HfApi) -> None:
    kept = watch(merged, "--quiet").stdout.strip()
    result = watch("local/other", "--remove")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "Nothing watches it.\n")
    assert [hook.id for hook in api.list_webhooks()] == [kept]
    assert watch(merged, "--remove").stdout.startswith(f"removed: webhook {kept}: on a commit to ")
    assert not api.list_webhooks()


@webhooks
def test_folders_cannot_be_watched(hub: LocalHub, own_parents: Parents) -> None:
    repo = new_repo()
    merge_and_push(linear(own_parents.folders), repo, target_token=hub.token, options=OPTIONS)
    sentence = f"Error: {repo} was made from folders alone; there is nothing to watch\n"
    assert (watch(repo).exit_code, watch(repo).stderr) == (1, sentence)


@webhooks
def test_a_merge_without_a_lock_file_cannot_be_watched(api: HfApi, tmp_path: Path, own_parents: Parents) -> None:
    repo = new_repo()
    api.create_repo(repo)
    recipe = json.dumps(own_parents.recipe()).encode()
    api.upload_file(path_or_fileobj=recipe, path_in_repo="mergekit_config.yml", repo_id=repo)
    sentence = f"nobody recorded at which commits the parents of {repo} were merged: it has no hubmerge.lock.json"
    assert watch(repo).stderr.startswith(f"Error: {sentence}\n")


def test_contradictions_are_refused(merged: str) -> None:
    result = watch(merged, "--list", "--remove")
    assert (result.exit_code, "--list, --remove and --schedule exclude one another" in result.stderr) == (2, True)


def test_what_is_no_schedule_is_refused(merged: str, api: HfApi) -> None:
    result = watch(merged, "--schedule", "every day")
    hint = "Hint: Write @daily, or five fields of cron: '0 4 * * 1'.\n"
    assert (result.exit_code, result.stderr) == (1, f"Error: 'every day' is no schedule\n{hint}")
    assert not api.list_scheduled_jobs()


def test_a_huggingface_hub_that_cannot_is_refused(merged: str, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_webhook(*, job_id: str) -> None:
        raise AssertionError

    monkeypatch.setattr(HfApi, "create_webhook", create_webhook)
    result = watch(merged)
    assert result.stderr == (
        f"Error: huggingface_hub {huggingface_hub.__version__} gives the jobs of webhooks no token\n"
        "Hint: pip install --upgrade huggingface_hub, or look at set times with --schedule @daily.\n"
    )
    assert watch(merged, "--schedule", "@daily").exit_code == 0
