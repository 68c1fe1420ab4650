"""A repository of recipes, from nothing to a published merge, as somebody new to it would."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from tests.automation.runner import read_yaml
from tests.end_to_end.merges import Parents, new_repo

FILES = ["merges/merged.yaml", ".github/workflows/republish.yml", ".github/workflows/plan.yml", "README.md"]


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def test_a_new_user_comes_to_a_published_merge(
    tmp_path: Path, hub: LocalHub, parents: Parents, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    target = new_repo()
    started = run("init", str(tmp_path), "--target", target)
    recipe = Path(started.stdout.splitlines()[0])
    example = yaml.safe_load(recipe.read_text())
    names = dict(zip([entry["model"] for entry in example["models"]], [*parents.repos, parents.repos[0]], strict=True))
    text = recipe.read_text()
    for name, local in names.items():
        text = text.replace(name, local)
    recipe.write_text(text)
    planned = run("plan", str(recipe))
    assert (planned.exit_code, planned.stderr) == (0, "")
    program, *words = shlex.split(started.stderr.splitlines()[1])
    assert program == "hubmerge"
    pushed = run(*words, "--quiet")
    assert pushed.stdout == f"{api.endpoint}/{target}\n"
    assert "hubmerge.lock.json" in api.list_repo_files(target)


def test_the_claims_to_enter_are_printed(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    origin = "git@github.com:ann/merges.git"
    subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", origin], check=True)
    result = run("init", str(tmp_path), "--target", "ann/merged")
    assert result.stdout.splitlines() == [str(tmp_path / file) for file in FILES]
    recipe = tmp_path / "merges/merged.yaml"
    assert result.stderr.splitlines() == [
        f"Edit {recipe}, and publish its first merge:",
        f"  hubmerge merge-and-push {recipe} ann/merged",
        "So that GitHub may go on with it, enter these claims under Trusted Publishers on "
        "https://huggingface.co/ann/merged/settings:",
        "  repository = ann/merges",
        "  branch = main",
        "  workflow = republish.yml",
        f"{tmp_path / 'README.md'} has all steps.",
    ]
    assert "| `repository` | `ann/merges` |\n   | `branch` | `main` |\n" in (tmp_path / "README.md").read_text()


def test_a_name_that_only_stands_for_ones_own_is_called_that(tmp_path: Path) -> None:
    told = run("init", str(tmp_path)).stderr.splitlines()[-1]
    assert told == "`me` stands for your name on the Hub: --target writes the files with it."


def test_the_result_as_json(tmp_path: Path) -> None:
    result = run("init", str(tmp_path), "--json")
    claims = {"repository": "OWNER/REPOSITORY", "branch": "main", "workflow": "republish.yml"}
    assert json.loads(result.stdout)["claims"] == claims
    assert result.stderr == ""


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("mine")
    result = run("init", str(tmp_path))
    hint = "Hint: Choose another folder; nothing is overwritten."
    assert (result.exit_code, result.stderr) == (1, f"Error: {readme} exists\n{hint}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert readme.read_text() == "mine"


@pytest.mark.parametrize("target", ["merged", "../merged", "a/b/c", ""])
def test_a_target_must_be_a_repo(tmp_path: Path, target: str) -> None:
    result = run("init", str(tmp_path), "--target", target)
    sentence = f"Error: {target!r} is not the name of a repo on the Hub\nHint: Name it OWNER/NAME.\n"
    assert (result.exit_code, result.stderr) == (1, sentence)


def test_the_workflows_call_the_ones_of_hubmerge_with_inputs_that_these_have(tmp_path: Path) -> None:
    assert run("init", str(tmp_path), "--target", "ann/merged").exit_code == 0
    for name in ("republish.yml", "plan.yml"):
        workflow = read_yaml(tmp_path / ".github/workflows" / name)
        called = read_yaml(Path(__file__).parents[2] / ".github/workflows" / name)
        (job,) = workflow["jobs"].values()
        accepted = called["on"]["workflow_call"]
        assert set(job["with"]) <= set(accepted["inputs"])
        assert set(job.get("secrets", {})) <= set(accepted.get("secrets", {}))
        needed = {right for each in called["jobs"].values() for right in each["permissions"].items()}
        assert set(job["permissions"].items()) == needed


def test_the_workflows_are_valid(tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema")
    assert run("init", str(tmp_path)).exit_code == 0
    workflows = sorted((tmp_path / ".github/workflows").glob("*.yml"))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
