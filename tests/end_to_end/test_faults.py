"""Merges while the Hub and the network misbehave: the right bytes in the end, or one sentence and nothing lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.errors import PublishError, TargetMovedError, TransferError
from hubmerge.localhub import LocalHub
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_and_push
from hubmerge.merge.stream import StreamOptions
from tests.end_to_end.merges import (
    OPTIONS,
    SHARD_BYTES,
    SHARD_COUNT,
    Parents,
    Recorder,
    new_repo,
    shard_hashes,
    staged_shards,
    weight_bytes_read,
)

PIECEMEAL = MergeOptions(
    shard_bytes=SHARD_BYTES, stream=StreamOptions(read_ahead_bytes=300_000, connections=1), diagnostics=False
)
"""One batch of tensors after the other is asked for."""


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubmerge.merge.read_ahead.BATCH_BYTES", 300_000)


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize(
    ("match", "fault"),
    [
        ("GET /cdn/", {"status": 503, "count": 3}),
        ("GET /cdn/", {"drop_after_bytes": 70_000, "count": 5}),
        ("GET /cdn/", {"status": 429, "headers": {"Retry-After": "1"}, "skip": 2, "count": 2}),
        ("GET /cdn/", {"status": 403, "body": "Request has expired", "skip": 2, "count": 3}),
        ("GET /local/parent.*/resolve/", {"status": 500, "skip": 3, "count": 2}),
        ("GET /api/models/local/parent", {"status": 503, "count": 2}),
        ("POST .*/commit/", {"status": 503, "skip": 1, "count": 2}),
        ("POST .*/commit/main", {"status": 504, "apply_first": True, "count": 1}),
        ("POST .*/preupload/", {"drop_after_bytes": 0, "skip": 1, "count": 2}),
        ("GET .*/xet-write-token/", {"status": 503, "count": 2}),
        ("POST /cas/", {"status": 503, "skip": 1, "count": 2}),
        ("POST /cas/", {"drop_after_bytes": 0, "skip": 2, "count": 1}),
    ],
)
def test_faults_that_pass_change_no_byte(
    hub: LocalHub,
    api: HfApi,
    parents: Parents,
    expected: Mapping[str, str],
    match: str,
    fault: dict[str, object],
) -> None:
    repo = new_repo()
    hub.faults.add(match, **fault)
    merge_and_push(parents.recipe(), repo, target_token=hub.token, options=OPTIONS)
    assert hub.faults.to_json()[0]["seen"] >= fault["count"] + fault.get("skip", 0)
    assert shard_hashes(api, repo) == expected


@pytest.mark.usefixtures("_small_batches")
def test_addresses_that_expire_during_the_merge_are_renewed(
    hub: LocalHub, api: HfApi, parents: Parents, expected: Mapping[str, str]
) -> None:
    repo = new_repo()
    for skip in (4, 8, 9):
        hub.faults.add("GET /cdn/", status=403, skip=skip, count=1)
    hub.requests.clear()
    merge_and_push(parents.recipe(), repo, target_token=hub.token, options=PIECEMEAL)
    assert [record.status for record in hub.requests.matching("GET /cdn/")].count(403) == 3
    assert shard_hashes(api, repo) == expected


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("spoil", [{"ignore_range": True}, {"status": 416}])
def test_answers_to_another_question_are_never_merged(
    hub: LocalHub, api: HfApi, parents: Parents, spoil: dict[str, object]
) -> None:
    repo = new_repo()
    hub.faults.add("GET /cdn/", skip=2, **spoil)
    with pytest.raises(TransferError, match=r"parent-[12].*/model.safetensors: asked for bytes .*, but "):
        merge_and_push(parents.recipe(), repo, target_token=hub.token, options=OPTIONS)
    assert shard_hashes(api, repo) == {}


@pytest.mark.usefixtures("_no_waiting", "_small_batches")
def test_a_network_that_is_gone_costs_what_was_not_staged(
    hub: LocalHub, api: HfApi, parents: Parents, expected: Mapping[str, str]
) -> None:
    repo = new_repo()
    hub.faults.add("GET /cdn/", drop_after_bytes=0, skip=9)
    with pytest.raises(TransferError) as caught:
        merge_and_push(parents.recipe(), repo, target_token=hub.token, options=PIECEMEAL)
    assert " did not arrive in 9 attempts; the last one: " in str(caught.value)
    assert caught.value.hint == "Check the connection and run the command again."
    staged = staged_shards(api, repo)
    assert 0 < len(staged) < SHARD_COUNT
    assert shard_hashes(api, repo) == {}
    hub.faults.clear()
    hub.requests.clear()
    recorder = Recorder()
    merge_and_push(parents.recipe(), repo, target_token=hub.token, options=OPTIONS, progress=recorder)
    assert recorder.skipped == staged
    missing = [shard for shard in recorder.plan.shards if shard.filename not in staged]
    tensor_bytes = sum(shard.size_bytes - len(shard.header) for shard in missing)
    assert weight_bytes_read(hub) == len(parents.repos) * tensor_bytes + parents.header_bytes
    assert shard_hashes(api, repo) == expected


@pytest.mark.usefixtures("_no_waiting")
def test_a_target_that_moved_is_published_to_by_the_same_command(
    hub: LocalHub, api: HfApi, parents: Parents, expected: Mapping[str, str]
) -> None:
    repo = new_repo()
    api.create_repo(repo)
    recorder = Recorder(on_begin=lambda: api.upload_file(path_or_fileobj=b"1", path_in_repo="theirs.txt", repo_id=repo))
    with pytest.raises(TargetMovedError):
        merge_and_push(parents.recipe(), repo, target_token=hub.token, options=OPTIONS, progress=recorder)
    assert shard_hashes(api, repo) == {}
    hub.requests.clear()
    merge_and_push(parents.recipe(), repo, target_token=hub.token, options=OPTIONS)
    assert weight_bytes_read(hub) == parents.header_bytes
    assert shard_hashes(api, repo) == expected
    assert api.file_exists(repo, "theirs.txt")


@pytest.mark.usefixtures("_no_waiting")
def test_uploads_that_fail_for_good_stop_the_merge(
    hub: LocalHub, api: HfApi, parents: Parents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    repo = new_repo()
    hub.faults.add("POST .*/info/lfs/objects/batch", status=400, body="Not now\nor ever", skip=2)
    with pytest.raises(PublishError) as caught:
        merge_and_push(parents.recipe(), repo, target_token=hub.token, options=OPTIONS)
    name = "model-00003-of-00004.safetensors"
    assert (
        str(caught.value)
        == f"could not upload {name} to {repo}: the Hub answers HTTP 400; the Hub says: Not now or ever"
    )
    assert staged_shards(api, repo) == ["model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors"]


@pytest.mark.usefixtures("_no_waiting")
def test_the_command_says_so_in_one_sentence(
    hub: LocalHub, parents: Parents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yml").write_text(str(parents.recipe()))
    hub.faults.add(".*", drop_after_bytes=0)
    result = CliRunner().invoke(main, ["merge-and-push", "recipe.yml", new_repo()])
    assert result.exit_code == 1
    assert result.stdout == ""
    first, *lines = result.stderr.splitlines()
    assert first == "Error: 2 models cannot be used:"
    for line, repo in zip(lines, parents.repos, strict=True):
        assert line.startswith(f"  - {hub.endpoint} does not answer for {repo}: RemoteProtocolError: peer closed")
        assert line.endswith("(Check the connection and run the command again.)")
