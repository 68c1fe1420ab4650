"""A token is nowhere in what a merge writes, says or leaves, whether it ends well or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HOME

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from tests.checkpoints import push_folder, write_llama
from tests.end_to_end.merges import linear, new_repo, texts


@pytest.mark.parametrize("fault", [None, {"match": "POST .*/commit/main", "status": 400, "body": "no"}])
def test_a_token_is_in_no_file_and_in_no_word(hub: LocalHub, tmp_path: Path, fault: dict[str, object] | None) -> None:
    repo, folders = new_repo(), tuple(write_llama(tmp_path / f"parent-{seed}", seed=seed) for seed in (1, 2))
    (tmp_path / "recipe.yml").write_text(str(linear(folders)))
    if fault is not None:
        hub.faults.add(**fault)
    words = ["merge-and-push", str(tmp_path / "recipe.yml"), repo, "--license", "mit", "--license-reason", "mine"]
    environment = {"TMPDIR": str(tmp_path), "HUBMERGE_TARGET_TOKEN": hub.token, "HUBMERGE_SOURCE_TOKEN": hub.token}
    result = CliRunner(env=environment).invoke(main, words)
    assert result.exit_code == (0 if fault is None else 1), result.output
    api = HfApi(token=hub.token)
    branches = [branch.name for branch in api.list_repo_refs(repo).branches]
    kept = [
        Path(api.hf_hub_download(repo, name, revision=branch)).read_bytes()
        for branch in branches
        for name in api.list_repo_files(repo, revision=branch)
    ]
    local = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    commits = [f"{commit.title}{commit.message}" for branch in branches for commit in api.list_repo_commits(repo)]
    assert len(kept) >= 3
    assert not any(hub.token.encode() in content for content in kept + local)
    assert hub.token not in result.output + "".join(commits)


@pytest.mark.usefixtures("_nothing_watched")
def test_a_token_is_in_nothing_that_any_command_writes_or_says(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, folders = new_repo(), tuple(write_llama(tmp_path / f"parent-{seed}", seed=seed) for seed in (1, 2))
    parents = [f"local/{repo.rpartition('/')[2]}-{folder.name}" for folder in folders]
    for parent, folder in zip(parents, folders, strict=True):
        push_folder(hub.token, parent, folder)
    monkeypatch.chdir(tmp_path)
    Path("recipe.yml").write_text(str(linear(tuple(parents))))
    told = ""
    for words in (
        ["merge-and-push", "recipe.yml", repo],
        ["plan", "recipe.yml", "--json"],
        ["inspect", "recipe.yml"],
        ["merge", "recipe.yml", "merged"],
        ["card", "merged"],
        ["lineage", repo, "--audit"],
        ["status", repo],
        ["verify", repo, "--full", "--attest", "statement.json", "--json"],
        ["republish", repo],
        ["extract-lora", parents[0], parents[1], "lora", "--rank", "2"],
        ["dpo", repo, "--dataset", "nobody/nothing"],
        ["clean", repo, "--yes"],
        ["init", "recipes"],
        ["watch", repo],
        ["watch", repo, "--remove"],
    ):
        environment = {"TMPDIR": str(tmp_path), "HUBMERGE_TARGET_TOKEN": hub.token}
        environment |= {"HUBMERGE_SOURCE_TOKEN": hub.token, "HF_TOKEN": hub.token}
        result = CliRunner(env=environment).invoke(main, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)
        assert hub.token not in result.output, words
        told += result.output
    local = [path for path in [*tmp_path.rglob("*"), *Path(HF_HOME).rglob("*")] if path.is_file()]
    assert len(local) > 30
    assert not [path for path in local if hub.token.encode() in path.read_bytes()]
    assert not [name for name, text in texts(HfApi(token=hub.token), repo).items() if hub.token in text]
    assert told.count("Usage:") == 0, told


@pytest.fixture
def _nothing_watched(hub: LocalHub) -> Iterator[None]:
    yield
    api = HfApi(token=hub.token)
    for hook in api.list_webhooks():
        api.delete_webhook(hook.id)
    for job in api.list_scheduled_jobs():
        api.delete_scheduled_job(scheduled_job_id=job.id)
