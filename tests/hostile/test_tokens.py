"""A token is nowhere in what a merge writes, says or leaves, whether it ends well or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from tests.checkpoints import write_llama
from tests.end_to_end.merges import linear, new_repo


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
