"""The command line against a Hub: what it prints, what it keeps to itself, and how it ends."""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from tests.end_to_end.commands import CommandLine
from tests.end_to_end.merges import SHARD_COUNT, Parents, new_repo, shard_hashes, texts, weight_bytes_read


def test_the_url_is_all_that_goes_to_stdout_and_no_token_goes_anywhere(
    hub: LocalHub, parents: Parents, expected: Mapping[str, str], tmp_path: Path
) -> None:
    source = hub.create_token("local", role="read")
    target = hub.create_token("local")
    command = CommandLine(tmp_path, parents.recipe(), HUBMERGE_SOURCE_TOKEN=source)
    repo = new_repo()
    done = command.run(repo, "--private", "--target-token", target, "--commit-message", "Two made one")
    assert (done.returncode, done.stdout) == (0, f"{hub.endpoint}/{repo}\n"), done.stderr
    assert done.stderr.splitlines() == ["Merging 2 models by linear: 2.89 MB to read, 1.45 MB to write"]
    api = HfApi(token=target)
    assert shard_hashes(api, repo) == expected
    assert api.model_info(repo).private
    written = texts(api, repo)
    assert "Two made one" in written["commits"]
    assert {"README.md", "config.json", "hubmerge.lock.json", "mergekit_config.yml"} <= written.keys()
    for text in (done.stdout, done.stderr, *written.values()):
        assert source not in text
        assert target not in text
    assert list(command.temporary.iterdir()) == []


def test_without_xet_files_travel_by_lfs_and_the_result_may_be_json(
    hub: LocalHub, api: HfApi, parents: Parents, expected: Mapping[str, str], tmp_path: Path
) -> None:
    command = CommandLine(tmp_path, parents.recipe(), HF_HUB_DISABLE_XET="1", HF_TOKEN=hub.token)
    repo = new_repo()
    hub.requests.clear()
    done = command.run(repo, "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"url": f"{hub.endpoint}/{repo}", "commit": api.model_info(repo).sha}
    assert len(hub.requests.matching("POST .*/info/lfs/objects/batch")) == SHARD_COUNT + 1  # and the picture
    assert hub.requests.matching("/cas/") == []
    assert shard_hashes(api, repo) == expected


def test_a_bad_day_changes_no_byte(
    hub: LocalHub, api: HfApi, parents: Parents, expected: Mapping[str, str], tmp_path: Path
) -> None:
    command = CommandLine(tmp_path, parents.recipe(), HF_HUB_DOWNLOAD_TIMEOUT="1", HF_TOKEN=hub.token)
    repo = new_repo()
    hub.faults.add("GET /cdn/", stall_after_bytes=50_000, skip=2, count=1)
    hub.faults.add("GET /cdn/", drop_after_bytes=50_000, skip=2, count=1)
    hub.faults.add("GET /cdn/", status=429, headers={"Retry-After": "1"}, skip=2, count=1)
    hub.faults.add("GET /cdn/", status=403, skip=2, count=1)
    hub.faults.add(f"POST /api/models/{repo}/commit/hubmerge", status=503, count=1)
    hub.faults.add(f"POST /api/models/{repo}/commit/main", status=504, apply_first=True, count=1)
    done = command.run(repo)
    assert (done.returncode, done.stdout) == (0, f"{hub.endpoint}/{repo}\n"), done.stderr
    assert shard_hashes(api, repo) == expected
    assert [fault["seen"] >= fault["skip"] + 1 for fault in hub.faults.to_json()] == [True] * 6


def test_a_disk_that_refuses_is_one_sentence(hub: LocalHub, api: HfApi, parents: Parents, tmp_path: Path) -> None:
    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    command = CommandLine(tmp_path, parents.recipe(), HF_TOKEN=hub.token)
    repo = new_repo()
    done = command.run(repo, preexec_fn=limit_files)
    assert (done.returncode, done.stdout) == (1, "")
    _begun, error, *_hint = done.stderr.splitlines()
    assert error.startswith(f"Error: {command.temporary}/hubmerge-")
    assert error.endswith(
        "/model-00001-of-00004.safetensors.part would be larger than its file system or `ulimit -f` allows"
    )
    assert list(command.temporary.iterdir()) == []
    assert shard_hashes(api, repo) == {}


def test_a_target_that_may_not_be_written_costs_nothing(hub: LocalHub, parents: Parents, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(json.dumps(parents.recipe()))
    repo = new_repo("somebody")
    hub.requests.clear()
    result = CliRunner().invoke(main, ["merge-and-push", str(recipe), repo, "--target-token", hub.token])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"Error: the token may not write to {repo}; the Hub says: "
        "You don't have the rights to create a model under the namespace somebody",
        "Hint: Use a token with write access to it (--target-token, or HF_TOKEN), or choose a repo of your own.",
    ]
    assert weight_bytes_read(hub) == parents.header_bytes


def test_an_unknown_parent_is_one_sentence(hub: LocalHub, parents: Parents, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(json.dumps(parents.recipe()).replace(parents.repos[0], "local/nobody"))
    result = CliRunner().invoke(main, ["merge-and-push", str(recipe), new_repo(), "--target-token", hub.token])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "Error: there is no model local/nobody on the Hub, or it is private and no token was given",
        "Hint: Check the name; if it is private, run `hf auth login`.",
    ]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--create-pr", "--revision", "dev"], "--create-pr goes to main: leave out --revision"),
        (["--license", "mit"], "--license and --license-reason go together"),
    ],
)
def test_options_that_contradict_each_other_are_a_usage_error(options: list[str], complaint: str) -> None:
    result = CliRunner().invoke(main, ["merge-and-push", "recipe.yml", new_repo(), *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"Error: {complaint}"


def test_a_pull_request_prints_its_page(hub: LocalHub, api: HfApi, parents: Parents, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(json.dumps(parents.recipe()))
    repo = new_repo()
    api.create_repo(repo)
    words = ["merge-and-push", str(recipe), repo, "--create-pr", "--target-token", hub.create_user("proposer")]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.stdout) == (0, f"{hub.endpoint}/{repo}/discussions/1\n")
    assert shard_hashes(api, repo) == {}
    api.merge_pull_request(repo, 1)
    assert "model.safetensors" in shard_hashes(api, repo)
