"""`hubmerge card` as people call it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from tests.existing.merges import AUTHORS_CARD, published, slerp, text_of


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["card", *map(str, words)])


@pytest.fixture
def recipe(parents: tuple[str, ...], tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yml"
    path.write_text(slerp(*parents))
    return path


def test_a_recipe_gives_the_card_that_its_merge_will_have(
    hub: LocalHub, api: HfApi, recipe: Path, parents: tuple[str, ...]
) -> None:
    repo = f"{parents[0]}-previewed"
    preview = run(recipe, "--repo", repo, "--seed", 3, "--source-token", hub.token)
    assert preview.exit_code == 0, preview.output
    assert "Checksums" not in preview.stdout
    words = ["merge-and-push", str(recipe), repo, "--seed", "3", "--target-token", hub.token]
    assert CliRunner().invoke(main, words).exit_code == 0
    before, after = preview.stdout.splitlines(), text_of(api, repo).splitlines()
    assert [line for line in before if line not in after] == []
    assert f"hubmerge merge-and-push mergekit_config.yml {repo} --seed 3" in before


def test_a_recipe_without_a_repo_is_the_card_of_a_folder(recipe: Path) -> None:
    assert "\n# merged-model\n" in run(recipe).stdout


def test_a_repos_card_is_printed_or_written_to_a_file(hub: LocalHub, merged: Path, tmp_path: Path) -> None:
    repo = published(hub, merged)
    printed = run(repo)
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert printed.stdout.startswith("---\nbase_model:\n")
    assert run(repo, "--out", tmp_path / "card.md").stdout == ""
    assert (tmp_path / "card.md").read_text() == printed.stdout


def test_a_dry_run_prints_the_change_and_makes_none(hub: LocalHub, api: HfApi, merged: Path) -> None:
    repo = published(hub, merged)
    result = run(repo, "--push", "--dry-run", "--target-token", hub.token)
    assert result.exit_code == 0
    assert result.stdout.startswith("--- a/README.md\n+++ b/README.md\n@@ ")
    assert "\n-licence: license\n" in result.stdout
    assert result.stdout.endswith("\nnew file lineage.json\n")
    assert text_of(api, repo) == AUTHORS_CARD


def test_a_strangers_card_cannot_steer_the_terminal(merged: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(merged, tmp_path / "merged")
    (folder / "README.md").write_text("# Mine \x1b[2J\n")
    result = run(folder, "--dry-run", "--no-lineage")
    assert "\x1b" not in result.stdout
    assert "\n # Mine \\x1b[2J\n" in result.stdout


def test_a_push_shows_the_change_first_and_a_second_one_does_nothing(hub: LocalHub, api: HfApi, merged: Path) -> None:
    repo = published(hub, merged)
    result = run(repo, "--push", "--commit-message", "Mended", "--target-token", hub.token)
    assert (result.exit_code, result.stdout) == (0, f"{hub.endpoint}/{repo}\n")
    assert result.stderr.startswith("--- a/README.md\n")
    assert api.list_repo_commits(repo)[0].title == "Mended"
    again = run(repo, "--push", "--target-token", hub.token)
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "The card is as it should be\n")


def test_a_pull_request_prints_its_page(hub: LocalHub, merged: Path) -> None:
    repo = published(hub, merged)
    result = run(repo, "--create-pr", "--target-token", hub.create_user("card-helper"))
    assert (result.exit_code, result.stdout) == (0, f"{hub.endpoint}/{repo}/discussions/1\n")


def test_a_folders_card_is_written_into_it(merged: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(merged, tmp_path / "merged")
    result = run(folder, "--write", "--no-lineage")
    assert (result.exit_code, result.stdout) == (0, f"{folder}/README.md\n")
    assert "<!-- hubmerge:parents begin -->" in (folder / "README.md").read_text()


def test_the_result_may_be_json(hub: LocalHub, api: HfApi, merged: Path, parents: tuple[str, ...]) -> None:
    repo = published(hub, merged)
    told = json.loads(run(repo, "--json").stdout)
    assert (told["repo"], told["commit_read"]) == (repo, api.model_info(repo).sha)
    assert (told["made_elsewhere"], told["license"], told["license_outcome"]) == (True, "cc-by-nc-4.0", "derived")
    assert [parent["model"] for parent in told["parents"]] == list(parents)
    assert (told["changes"], told["url"]) == (["README.md", "lineage.json"], None)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["r.yml", "--push"], "a recipe's card is published with its merge: use `hubmerge merge-and-push`"),
        ([".", "--create-pr"], "a folder's card is written into it: use --write"),
        (["a/b", "--write"], "--write is for a folder; a repo takes --push or --create-pr"),
        (["a/b", "--repo", "c/d"], "--repo is for a recipe"),
        (["a/b", "--license", "mit"], "--license and --license-reason go together"),
    ],
)
def test_options_that_do_not_fit_are_a_usage_error(words: list[str], complaint: str) -> None:
    result = run(*words)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"Error: {complaint}")


def test_a_repo_that_is_not_there_is_one_sentence() -> None:
    result = run("nobody/nothing")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        1,
        "Error: there is no model nobody/nothing on the Hub, or it is private and no token was given",
    )
