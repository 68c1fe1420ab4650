"""Webhooks, jobs and schedules: what would run."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

pytestmark = pytest.mark.filterwarnings("ignore:.*experimental:UserWarning")


def test_a_job_is_recorded_with_the_names_of_its_secrets(api: HfApi) -> None:
    job = api.run_job(image="python:3.12", command=["python", "-V"], secrets={"HF_TOKEN": "hf_secret"}, timeout="1h")
    found = api.inspect_job(job_id=job.id)
    assert (found.command, found.docker_image, found.status.stage) == (["python", "-V"], "python:3.12", "SCHEDULING")
    assert found.secrets == {"HF_TOKEN": None}
    assert job.id in {each.id for each in api.list_jobs(namespace="ann")}
    api.cancel_job(job_id=job.id)
    assert api.inspect_job(job_id=job.id).status.stage == "CANCELED"


def test_a_script_job_and_its_schedule_are_recorded(api: HfApi) -> None:
    job = api.run_uv_job("hf-merge", script_args=["run", "ann/merged"], dependencies=["hubmerge"], flavor="cpu-upgrade")
    assert (job.flavor, job.owner.name) == ("cpu-upgrade", "ann")
    schedule = api.create_scheduled_uv_job("hf-merge", script_args=["run", "ann/merged"], schedule="@daily")
    assert [each.id for each in api.list_scheduled_jobs()] == [schedule.id]
    assert api.inspect_scheduled_job(scheduled_job_id=schedule.id).schedule == "@daily"
    api.suspend_scheduled_job(scheduled_job_id=schedule.id)
    assert api.inspect_scheduled_job(scheduled_job_id=schedule.id).suspend
    api.delete_scheduled_job(scheduled_job_id=schedule.id)
    assert not list(api.list_scheduled_jobs())


def test_a_commit_to_a_watched_repo_starts_the_job_of_its_webhook(api: HfApi, repo: str) -> None:
    secrets = {"HF_TOKEN": "hf_secret"}
    job = api.run_job(image="python:3.12", command=["hf-merge", "run", "ann/merged"], secrets=secrets)
    watched = [{"type": "model", "name": repo}]
    hook = api.create_webhook(job_id=job.id, watched=watched, domains=["repo"])
    assert [each.id for each in api.list_webhooks()] == [hook.id]
    before = api.model_info(repo).sha
    after = api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=repo).oid
    triggered = next(each for each in api.list_jobs(namespace="ann") if each.initiator.id == hook.id)
    assert (triggered.command, triggered.secrets) == (["hf-merge", "run", "ann/merged"], {"HF_TOKEN": None})
    payload = json.loads(triggered.environment["WEBHOOK_PAYLOAD"])
    assert payload["updatedRefs"] == [{"ref": "refs/heads/main", "oldSha": before, "newSha": after}]
    api.delete_webhook(hook.id)
    assert not list(api.list_webhooks())


def test_a_disabled_webhook_starts_nothing(api: HfApi, repo: str) -> None:
    job = api.run_job(image="python:3.12", command=["true"])
    hook = api.create_webhook(job_id=job.id, watched=[{"type": "user", "name": "ann"}])
    assert api.disable_webhook(hook.id).disabled
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=repo)
    assert hook.id not in {each.initiator.id for each in api.list_jobs(namespace="ann")}
    assert not api.enable_webhook(hook.id).disabled
    api.delete_webhook(hook.id)


def test_the_jobs_of_others_are_closed(api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError, match="You don't have the rights to the jobs of bob"):
        list(api.list_jobs(namespace="bob"))
