"""The composite action, its steps run by bash against the local Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_and_push
from tests.automation.runner import ACTION, ROOT, Runner, read_yaml
from tests.checkpoints import push_folder
from tests.end_to_end.merges import OPTIONS, new_repo, write_parents


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.fixture
def runner(tmp_path: Path, hub: LocalHub) -> Runner:
    return Runner(tmp_path, HF_TOKEN=hub.token, HUBMERGE_SOURCE_TOKEN="")


def test_a_dry_run_tells_the_plan_and_the_card_and_publishes_nothing(runner: Runner, recipe: Path, api: HfApi) -> None:
    target = new_repo()
    done = runner.merge_and_push(recipe="merges/merged.yaml", target=target)
    assert done.returncode == 0, done.stderr
    for expected in (f"→ `{target}`", "<summary>Plan</summary>", "licence", "+base_model_relation: merge", "A dry run"):
        assert expected in runner.summary
    assert runner.outputs == {}
    assert not api.repo_exists(target)


def test_without_a_stored_token_the_job_proves_who_it_is_and_publishes(
    hub: LocalHub, tmp_path: Path, recipe: Path, api: HfApi
) -> None:
    target = new_repo()
    api.create_repo(target)
    scoped = hub.create_token("local", name="trusted", role="fineGrained", repos=[target])
    hub.faults.add("GET /id-token", status=200, body=json.dumps({"value": "signed by GitHub"}))
    hub.faults.add("POST /oauth/token", status=200, body=json.dumps({"access_token": scoped, "expires_in": 3600}))
    identity = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{hub.endpoint}/id-token", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t"}
    runner = Runner(tmp_path, HF_TOKEN="", GITHUB_ACTIONS="true", **identity)
    hub.requests.clear()
    done = runner.merge_and_push(recipe="merges/merged.yaml", target=target, dry_run="false")
    assert done.returncode == 0, done.stderr
    assert runner.outputs == {"url": f"{api.endpoint}/{target}", "commit": api.model_info(target).sha}
    assert f"Published: {api.endpoint}/{target}" in runner.summary
    assert {request.token_name for request in hub.requests.matching("/commit/")} == {"trusted"}


def test_a_published_merge_follows_its_parents(
    runner: Runner, recipe: Path, hub: LocalHub, api: HfApi, tmp_path: Path
) -> None:
    own = write_parents(tmp_path, hub.token, owner="local")
    target = new_repo()
    merge_and_push(own.recipe(), target, target_token=hub.token, options=OPTIONS)
    card = Path(api.hf_hub_download(target, "README.md")).read_text() + "\n## My words\n\nIt rhymes.\n"
    before = api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=target).oid
    words = {"recipe": "merges/merged.yaml", "target": target, "if_changed": "true", "dry_run": "false"}
    assert runner.merge_and_push(**words).returncode == 0
    assert "Up to date" in runner.summary
    push_folder(hub.token, own.repos[1], own.folders[0])
    assert run("status", target).exit_code == 10
    assert runner.merge_and_push(**words | {"dry_run": "true"}).returncode == 0
    assert api.model_info(target).sha == before
    assert runner.merge_and_push(**words).returncode == 0
    assert runner.outputs["commit"] == api.model_info(target).sha != before
    assert run("status", target).exit_code == 0
    assert run("verify", target).exit_code == 0
    card = Path(api.hf_hub_download(target, "README.md")).read_text()
    assert "## My words\n\nIt rhymes." in card
    assert "## What changed" in card
    runner.merge_and_push(**words)
    assert api.model_info(target).sha == runner.outputs["commit"]


def test_a_pull_request_is_opened(runner: Runner, recipe: Path, api: HfApi) -> None:
    target = new_repo()
    api.create_repo(target)
    done = runner.merge_and_push(recipe="merges/merged.yaml", target=target, dry_run="false", create_pr="true")
    assert done.returncode == 0, done.stderr
    assert runner.outputs["url"] == f"{api.endpoint}/{target}/discussions/1"


def test_a_fault_of_the_recipe_is_in_the_summary(runner: Runner, recipe: Path) -> None:
    recipe.write_text(json.dumps({"merge_method": "lineer", "models": []}))
    done = runner.merge_and_push(recipe="merges/merged.yaml", target=new_repo())
    assert done.returncode == 1
    assert "Plan: failed" in runner.summary
    assert "lineer" in runner.summary


def test_what_a_person_has_to_decide_is_in_the_summary(
    runner: Runner, recipe: Path, hub: LocalHub, api: HfApi, tmp_path: Path
) -> None:
    own = write_parents(tmp_path, hub.token, owner="local")
    target, parent = new_repo(), own.repos[0]
    head = merge_and_push(own.recipe(), target, target_token=hub.token, options=OPTIONS).commit
    api.upload_file(path_or_fileobj=b"---\nlicense: cc-by-nc-4.0\n---\n", path_in_repo="README.md", repo_id=parent)
    done = runner.merge_and_push(recipe="merges/merged.yaml", target=target, if_changed="true", dry_run="false")
    assert (done.returncode, api.model_info(target).sha) == (3, head)
    assert "<summary>Nothing was published</summary>" in runner.summary
    assert f"  - {parent}: {parent} declares cc-by-nc-4.0 now, and declared" in runner.summary


def test_what_was_never_published_cannot_be_followed(runner: Runner, recipe: Path) -> None:
    done = runner.merge_and_push(recipe="merges/merged.yaml", target=new_repo(), if_changed="true")
    assert done.returncode == 1
    assert "Parents: failed" in runner.summary
    assert "run it once without `if-changed`, which is `force` of the workflow." in runner.summary


def test_a_name_is_never_run(runner: Runner, recipe: Path, tmp_path: Path) -> None:
    name = '$(touch pwned)`touch pwned`"; touch pwned; "'
    assert runner.merge_and_push(recipe=name, target=name).returncode != 0
    assert not (tmp_path / "pwned").exists()


def test_only_a_version_is_installed(runner: Runner) -> None:
    install = read_yaml(ACTION / "action.yml")["runs"]["steps"][1]
    done = runner.run(install, {"hubmerge-version": "0.1.0 --index-url https://evil.example"})
    assert (done.returncode, done.stderr) == (2, "::error::hubmerge-version is not a version\n")


def test_every_recipe_of_the_repository_is_listed(runner: Runner, recipe: Path) -> None:
    recipe.with_name("other.yaml").touch()
    step = read_yaml(ROOT / ".github/workflows/republish.yml")["jobs"]["list"]["steps"][-1]
    assert runner.run({"run": step["run"], "env": {"RECIPE": ""}}, {}).returncode == 0
    assert json.loads(runner.outputs["names"]) == ["merged", "other"]
    assert runner.run({"run": step["run"], "env": {"RECIPE": "other"}}, {}).returncode == 0
    assert json.loads(runner.outputs["names"]) == ["other"]
    assert runner.run({"run": step["run"], "env": {"RECIPE": "third"}}, {}).returncode == 1


def test_the_recipes_that_a_pull_request_touches_are_listed(runner: Runner, recipe: Path) -> None:
    git = "git -c user.name=a -c user.email=a@example.org"
    recipe.with_name('ünder "$(id)".yaml').touch()
    (recipe.parent / "deeper").mkdir()
    (recipe.parent / "deeper/not.yaml").touch()
    setup = f"git init -q; {git} commit -q --allow-empty -m 1; git add merges; {git} commit -q -m 2"
    assert runner.run({"run": setup}, {}).returncode == 0
    step = read_yaml(ROOT / ".github/workflows/plan.yml")["jobs"]["list"]["steps"][-1]
    assert runner.run({"run": step["run"]}, {}).returncode == 0
    assert json.loads(runner.outputs["names"]) == ["merged", 'ünder "$(id)"']


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_no_more_rights_than_they_need(path: Path) -> None:
    workflow = read_yaml(path)
    assert workflow["permissions"] == {}
    assert "pull_request_target" not in workflow["on"]
    for job in workflow["jobs"].values():
        assert set(job["permissions"].items()) <= {("contents", "read"), ("id-token", "write")}
        assert job["timeout-minutes"]
        assert not any("${{" in step.get("run", "") for step in job["steps"])


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION / "action.yml"], ids=lambda path: path.name)
def test_actions_are_pinned_with_their_version_beside(path: Path) -> None:
    for use in re.findall(r"uses: (.+)", path.read_text()):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v[\d.]+|\./\.hubmerge/\.github/actions/merge-and-push", use), use


def test_only_publishing_may_prove_who_it_is() -> None:
    publishing = [path.name for path in WORKFLOWS if "id-token: write" in path.read_text()]
    assert publishing == ["republish.yml"]
