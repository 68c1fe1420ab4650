from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from hubmerge.publish import FolderPublisher, HubPublisher, HubTarget, PlanNote
from tests.publish.places import FIRST, MESSAGE, OTHER_PLAN, PLAN, STAGING_BRANCH, new_repo, stage

NOTE = PlanNote({"recipe": {"merge_method": "linear"}, "parents": {"a/one": "1" * 40, "a/two": "2" * 40}})


def clean(*words: str, answer: str = "", token: str = "") -> Result:
    return CliRunner(env={"HUBMERGE_TARGET_TOKEN": token} if token else {}).invoke(
        main, ["clean", *words], input=answer
    )


def left_in_repo(hub: LocalHub, *, create_pr: bool = False) -> str:
    repo = new_repo("local")
    target = HubTarget(repo, MESSAGE, create_pr=create_pr)
    publisher = HubPublisher(target, fingerprint=PLAN, note=NOTE, token=hub.token)
    publisher.open()
    stage(publisher, FIRST, b"content")
    publisher.close()
    return repo


def left_in_folder(folder: Path) -> Path:
    publisher = FolderPublisher(folder, fingerprint=PLAN, note=NOTE)
    publisher.open()
    stage(publisher, FIRST, b"content")
    publisher.close()
    return folder


def test_a_staging_branch_is_listed_and_removed(hub: LocalHub) -> None:
    repo = left_in_repo(hub)
    listed = clean(repo, token=hub.token, answer="n\n")
    assert listed.stdout == f"{STAGING_BRANCH}: 0 min old, 1 shards (0.0 GB), linear of a/one, a/two\n"
    api = HfApi(token=hub.token)
    assert STAGING_BRANCH in [branch.name for branch in api.list_repo_refs(repo).branches]
    assert clean(repo, "--yes", token=hub.token).exit_code == 0
    assert [branch.name for branch in api.list_repo_refs(repo).branches] == ["main"]
    assert clean(repo, token=hub.token).stderr == f"{repo} holds no unfinished merges.\n"


def test_a_draft_is_closed(hub: LocalHub) -> None:
    repo = left_in_repo(hub, create_pr=True)
    assert clean(repo, token=hub.token, answer="y\n").exit_code == 0
    pulls = list(HfApi(token=hub.token).get_repo_discussions(repo, discussion_type="pull_request"))
    assert [pull.status for pull in pulls] == ["closed"]


def test_a_folder_is_listed_as_json_and_removed_on_demand(tmp_path: Path) -> None:
    folder = left_in_folder(tmp_path / "merged")
    entry = json.loads(clean(str(folder), "--json").stdout)[0]
    assert (entry["shards"], entry["size_bytes"], entry["plan"]) == (1, 7, dict(NOTE.content))
    assert len(list(folder.iterdir())) == 1
    clean(str(folder), "--json", "--yes")
    assert list(folder.iterdir()) == []


def test_a_running_merge_is_left_alone(tmp_path: Path) -> None:
    publisher = FolderPublisher(tmp_path, fingerprint=PLAN)
    publisher.open()
    stage(publisher, FIRST, b"content")
    assert clean(str(tmp_path), "--yes").stderr == f"{tmp_path} holds no unfinished merges.\n"
    assert publisher.workspace.is_dir()
    publisher.close()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "Error: there is no folder nowhere\nHint: A repo is named OWNER/NAME.\n"),
        ("a/../b", "Error: there is no folder a/../b\nHint: A repo is named OWNER/NAME.\n"),
    ],
)
def test_what_is_neither_a_folder_nor_a_repo_is_one_sentence(place: str, message: str) -> None:
    assert clean(place).stderr == message


def test_what_is_staged_for_another_plan_is_said(hub: LocalHub) -> None:
    repo = left_in_repo(hub)
    now = PlanNote({**NOTE.content, "recipe": {"merge_method": "slerp"}})
    publisher = HubPublisher(HubTarget(repo, MESSAGE), fingerprint=OTHER_PLAN, note=now, token=hub.token)
    assert publisher.open() == {}
    assert publisher.leftovers() == [
        f"! {STAGING_BRANCH} holds 1 shards of another plan (linear of a/one, a/two), which are not used. "
        f"recipe.merge_method: was linear, is slerp. `hubmerge clean {repo}` removes it."
    ]
    publisher.close()
