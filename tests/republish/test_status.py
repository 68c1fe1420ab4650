"""`hubmerge status`: what is different about each parent, and what that means for the exit code."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_to_folder
from tests.checkpoints import push_folder
from tests.republish.merges import Published, card, linear, publish_merge


def changes(merge: Published) -> tuple[int, list[list[str]]]:
    """Returns the exit code and what is different about each parent."""
    result = merge.run("status", "--json")
    return result.exit_code, [parent["changes"] for parent in json.loads(result.stdout)["parents"]]


def test_a_merge_of_parents_that_did_not_move_is_up_to_date(untouched: Published) -> None:
    result = untouched.run("status")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == f"{untouched.repo} is up to date"
    assert [line.split()[-1] for line in result.stdout.splitlines()[1:3]] == ["unchanged", "unchanged"]


def test_no_weights_are_read(untouched: Published) -> None:
    untouched.hub.requests.clear()
    assert untouched.run("status").exit_code == 0
    asked = [record.path for parent in untouched.parents for record in untouched.hub.requests.matching(parent)]
    assert asked
    assert not [path for path in asked if path.endswith(".safetensors")]


def test_quiet_prints_nothing(untouched: Published) -> None:
    result = untouched.run("status", "--quiet")
    assert (result.exit_code, result.stdout) == (0, "")


def test_documentation_alone_is_said(merge: Published) -> None:
    merge.write("README.md", card("apache-2.0") + "# News\n", repo=merge.parents[0])
    sentence = f"{merge.repo} is up to date; different all the same: docs of {merge.parents[0]}"
    assert merge.run("status").stdout.splitlines()[-1] == sentence


def test_other_weights_make_it_stale(merge: Published) -> None:
    old = merge.api.model_info(merge.parents[1]).sha
    new = merge.change_weights(1)
    result = merge.run("status", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["stale"], told["recipe_changed"]) == (10, True, False)
    parent = told["parents"][1]
    assert (parent["changes"], parent["old_sha"], parent["new_sha"]) == (["weights"], old, new)


def test_licence_terms_and_names_are_looked_at(merge: Published) -> None:
    first, second = merge.parents
    merge.write("README.md", card("cc-by-nc-4.0"), repo=first)
    merge.api.update_repo_settings(first, gated="manual")
    merge.api.move_repo(second, f"{second}-renamed")
    assert changes(merge) == (10, [["docs", "licence", "gated"], ["renamed"]])
    assert merge.run("status").stdout.splitlines()[-4:-1] == [
        f"! {first} asks its readers to accept terms now",
        f"! {first} declares cc-by-nc-4.0 now, and declared apache-2.0",
        f"! {second} is called {second}-renamed now",
    ]


def test_a_parent_that_is_gone(merge: Published) -> None:
    merge.api.delete_repo(merge.parents[1])
    assert changes(merge) == (10, [[], ["gone"]])


def test_a_gated_parent_that_this_reader_may_not_read(merge: Published) -> None:
    merge.api.update_repo_settings(merge.parents[0], gated="manual")
    stranger = merge.hub.create_user(f"stranger-{merge.repo.rpartition('-')[2]}")
    result = CliRunner().invoke(main, ["status", merge.repo, "--json", "--source-token", stranger])
    assert (result.exit_code, json.loads(result.stdout)["parents"][0]["changes"]) == (10, ["gated"])


def test_a_recipe_that_somebody_edited(merge: Published) -> None:
    other = merge.parents[0] + "-copy"
    push_folder(merge.hub.token, other, merge.folders[0])
    merge.write("mergekit_config.yml", merge.text("mergekit_config.yml").replace(merge.parents[0], other))
    result = merge.run("status", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["recipe_changed"]) == (10, True)
    assert [(parent["model"], parent["changes"]) for parent in told["parents"]] == [
        (other, ["added"]),
        (merge.parents[1], []),
        (merge.parents[0], ["removed"]),
    ]


def test_a_parent_at_a_commit_cannot_move(hub: LocalHub, tmp_path: Path) -> None:
    def pinned(first: str, second: str) -> str:
        return linear(f"{first}@{HfApi(token=hub.token).model_info(first).sha}", second)

    merge = publish_merge(hub, tmp_path, pinned)
    merge.change_weights(0)
    assert changes(merge) == (0, [[], []])


def test_a_folder_with_a_merge_has_a_status_too(untouched: Published, tmp_path: Path) -> None:
    merge_to_folder(linear(*untouched.parents), tmp_path / "merged")
    result = CliRunner().invoke(main, ["status", str(tmp_path / "merged")])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, f"{tmp_path / 'merged'} is up to date")


def test_a_recipe_gets_the_commits_that_it_would_be_made_from(untouched: Published, tmp_path: Path) -> None:
    (tmp_path / "recipe.yml").write_text(linear(*untouched.parents))
    result = CliRunner().invoke(main, ["status", str(tmp_path / "recipe.yml"), "--json"])
    commits = [untouched.api.model_info(parent).sha for parent in untouched.parents]
    assert result.exit_code == 0
    assert [parent["sha"] for parent in json.loads(result.stdout)["parents"]] == commits


def test_a_recipe_beside_a_lock_file_is_compared_with_it(merge: Published, tmp_path: Path) -> None:
    for name in ("mergekit_config.yml", "hubmerge.lock.json"):
        (tmp_path / name).write_text(merge.text(name))
    recipe = str(tmp_path / "mergekit_config.yml")
    assert CliRunner().invoke(main, ["status", recipe, "-q"]).exit_code == 0
    merge.change_weights()
    assert CliRunner().invoke(main, ["status", recipe, "-q"]).exit_code == 10


def test_a_merge_that_another_tool_made_is_one_sentence(merge: Published) -> None:
    merge.api.delete_file("hubmerge.lock.json", merge.repo)
    result = merge.run("status")
    assert result.exit_code == 1
    recorded = f"Error: nobody recorded at which commits the parents of {merge.repo} were merged"
    assert result.stderr.splitlines() == [
        f"{recorded}: it has no hubmerge.lock.json",
        "Hint: Make it again once from its recipe: hubmerge merge-and-push mergekit_config.yml " + merge.repo,
    ]


def test_a_lock_file_of_a_newer_hubmerge_is_told_from_a_broken_one(merge: Published) -> None:
    lock = json.loads(merge.text("hubmerge.lock.json"))
    merge.write("hubmerge.lock.json", json.dumps(lock | {"schema_version": 2}))
    reason = "hubmerge.lock.json: its schema version is 2, and this hubmerge reads 1"
    newer = merge.run("status").stderr
    assert newer.endswith(f"were merged: {reason}\nHint: Update hubmerge: pip install --upgrade hubmerge\n")
    merge.write("hubmerge.lock.json", "[]")
    assert "were merged: hubmerge.lock.json must be an object\n" in merge.run("status").stderr


def test_where_the_recipe_is_deleted_the_one_in_the_card_counts(merge: Published) -> None:
    merge.api.delete_file("mergekit_config.yml", merge.repo)
    assert changes(merge) == (0, [[], []])
