"""Merges as jobs: what the Hub is asked to run, run here in its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from hubmerge.version import __version__
from tests.automation.runner import ROOT
from tests.end_to_end.merges import new_repo


@pytest.fixture(autouse=True)
def _logged_in(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hubmerge.automation.jobs.POLL_SECONDS", 0.05)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def run_the_job(hub: LocalHub, api: HfApi, target: str, folder: Path) -> Any:
    """Runs the command of the job for a target as the Hub would, in a folder of its own, and returns the job."""
    while not (jobs := [job for job in api.list_jobs(namespace="local") if target in (job.command or [])]):
        time.sleep(0.05)
    (job,) = jobs
    command = job.command[job.command.index("bash") :]
    secrets = dict.fromkeys(job.secrets, hub.token)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | job.environment | secrets
    folder.mkdir()
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    stage = "ERROR" if done.returncode else "COMPLETED"
    hub.finish_job("local", job.id, stage=stage, log=(done.stderr + done.stdout).splitlines())
    return job


def submit(hub: LocalHub, api: HfApi, folder: Path, target: str, *words: object) -> tuple[Result, Any]:
    jobs: list[Any] = []
    worker = threading.Thread(target=lambda: jobs.append(run_the_job(hub, api, target, folder)))
    worker.start()
    result = run("merge-and-push", *words)
    worker.join()
    return result, jobs[0]


def test_the_job_merges_by_the_recipe_it_was_given_and_its_log_is_shown(
    hub: LocalHub, api: HfApi, recipe: Path, tmp_path: Path
) -> None:
    target = new_repo()
    words = (recipe, target, "--on", "job:cpu-xl", "--private", "--seed", 7, "--quiet", "--source-token", hub.token)
    result, job = submit(hub, api, tmp_path / "job", target, *words)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{job.url}\n"
    assert f"{api.endpoint}/{target}" in result.stderr.splitlines()
    assert api.model_info(target).private
    assert json.loads(Path(api.hf_hub_download(target, "hubmerge.lock.json")).read_text())["seed"] == 7
    assert job.flavor == "cpu-xl"
    assert job.command[:4] == ["uv", "run", "--with", f"hubmerge=={__version__}"]
    assert set(job.secrets) == {"HF_TOKEN", "HUBMERGE_SOURCE_TOKEN"}
    assert hub.token not in json.dumps([job.command, job.environment])


def test_a_job_that_fails_fails_the_command(hub: LocalHub, api: HfApi, recipe: Path, tmp_path: Path) -> None:
    target = "nobody/merged"
    result, job = submit(hub, api, tmp_path / "job", target, recipe, target, "--on", "job", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"job": job.url, "stage": "ERROR"}
    assert result.stderr.endswith("Error: the job ended as ERROR\n")
    assert "may not write to nobody/merged" in result.stderr


def test_folders_of_this_machine_are_refused(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(json.dumps({"merge_method": "passthrough", "models": [{"model": str(tmp_path)}]}))
    result = run("merge-and-push", recipe, "local/merged", "--on", "job")
    hint = "Hint: Push them to the Hub first, as private repos if need be.\n"
    assert result.stderr == f"Error: a job cannot read folders of this machine: {tmp_path}\n{hint}"


def test_a_job_needs_a_token(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    result = run("merge-and-push", recipe, "local/merged", "--on", "job")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: a job on the Hub needs a token and none is stored\nHint: Run `hf auth login`.\n",
    )


def test_the_hubs_refusal_is_a_sentence(hub: LocalHub, recipe: Path) -> None:
    hub.faults.add(match="POST /api/jobs/", status=402, body='{"error": "Pre-paid credit balance is insufficient"}')
    result = run("merge-and-push", recipe, "local/merged", "--on", "job")
    assert "Error: the Hub refuses the job: Pre-paid credit balance is insufficient\n" in result.stderr


def test_other_places_are_refused(recipe: Path) -> None:
    result = run("merge-and-push", recipe, "local/merged", "--on", "moon")
    assert (result.exit_code, "--on takes job or job:FLAVOR, not 'moon'" in result.stderr) == (2, True)
