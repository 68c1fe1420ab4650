"""Merges from the Hub to the Hub: what is published, what is read for it, what lies on the disk, what readers see."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer

from hubmerge.localhub import LocalHub
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_and_push
from hubmerge.merge.progress import Stage
from tests.checkpoints import push_folder, read_tensors, write_llama
from tests.end_to_end.merges import (
    OPTIONS,
    SHAPE,
    SHARD_COUNT,
    Parents,
    Recorder,
    new_repo,
    shard_hashes,
    staged_shards,
    watching,
    weight_bytes_read,
    write_parents,
)

LFS_UPLOAD = "POST .*/info/lfs/objects/batch"
XET_UPLOAD = "POST /cas/v2/shards"


@pytest.mark.parametrize("transport", ["xet", "lfs"])
def test_the_published_model_is_the_one_made_on_the_disk(
    hub: LocalHub,
    api: HfApi,
    parents: Parents,
    folder: Path,
    expected: Mapping[str, str],
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", transport == "lfs")
    repo = new_repo()
    hub.requests.clear()
    merge_and_push(parents.recipe(), repo, target_token=hub.token, options=replace(OPTIONS, diagnostics=True))
    used = {upload: len(hub.requests.matching(upload)) for upload in (LFS_UPLOAD, XET_UPLOAD)}
    large_files = SHARD_COUNT + 1  # and the picture
    assert used == {LFS_UPLOAD: large_files * (transport == "lfs"), XET_UPLOAD: large_files * (transport == "xet")}
    assert shard_hashes(api, repo) == expected
    loaded = AutoModelForCausalLM.from_pretrained(repo, dtype="auto").state_dict()
    for name, tensor in read_tensors(folder).items():
        assert torch.equal(loaded[name], tensor), name
    assert AutoTokenizer.from_pretrained(repo)("t5 t6")["input_ids"] == [5, 6]


def test_exactly_the_planned_bytes_are_read(hub: LocalHub, parents: Parents) -> None:
    recorder = Recorder()
    hub.requests.clear()
    merge_and_push(parents.recipe(), new_repo(), target_token=hub.token, options=OPTIONS, progress=recorder)
    assert weight_bytes_read(hub) == recorder.plan.read_bytes + parents.header_bytes
    assert recorder.total(Stage.READ) == recorder.plan.read_bytes


def test_every_byte_that_is_written_is_counted_once(hub: LocalHub, parents: Parents) -> None:
    recorder = Recorder()
    merge_and_push(parents.recipe(), new_repo(), target_token=hub.token, options=OPTIONS, progress=recorder)
    assert recorder.total(Stage.STAGE) == recorder.plan.write_bytes
    assert recorder.skipped == []


def test_parents_in_the_cache_of_the_hub_are_read_from_there(
    hub: LocalHub, api: HfApi, parents: Parents, expected: Mapping[str, str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for parent in parents.repos:
        snapshot_download(parent)
    hub.requests.clear()
    repo, recorder = new_repo(), Recorder()
    merge_and_push(parents.recipe(), repo, target_token=hub.token, options=OPTIONS, progress=recorder)
    assert weight_bytes_read(hub) == 0
    assert recorder.total(Stage.READ) == recorder.plan.read_bytes
    assert shard_hashes(api, repo) == expected


def test_a_parent_that_moves_meanwhile_is_read_at_the_planned_commit(
    hub: LocalHub, api: HfApi, expected: Mapping[str, str], tmp_path: Path
) -> None:
    parents = write_parents(tmp_path, hub.token, owner="local")
    planned = [api.model_info(parent).sha for parent in parents.repos]
    other = write_llama(tmp_path / "other", seed=9, **SHAPE)
    recorder = Recorder(on_begin=lambda: [push_folder(hub.token, parent, other) for parent in parents.repos])
    repo = new_repo()
    merge_and_push(parents.recipe(), repo, target_token=hub.token, options=OPTIONS, progress=recorder)
    assert [api.model_info(parent).sha for parent in parents.repos] != planned
    assert shard_hashes(api, repo) == expected
    lock = Path(hf_hub_download(repo, "hubmerge.lock.json")).read_text()
    assert all(sha in lock for sha in planned)


def test_at_most_two_shards_are_on_the_disk_and_they_go_up_while_others_are_made(
    hub: LocalHub, parents: Parents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hub.faults.add("POST .*/commit/hubmerge", delay_seconds=0.1)  # uploads are what everything waits for
    counts: list[int] = []
    recorder = Recorder()
    with watching(lambda: counts.append(len(list(tmp_path.glob("hubmerge-*/*.safetensors*"))))):
        merge_and_push(
            parents.recipe(),
            new_repo(),
            target_token=hub.token,
            options=MergeOptions(shard_bytes=200_000),
            progress=recorder,
        )
    assert len(recorder.plan.shards) > SHARD_COUNT
    assert max(counts) == 2
    assert list(tmp_path.iterdir()) == []
    stages = [stage for stage, _ in recorder.events]
    assert stages.index(Stage.STAGE) < len(stages) - 1 - stages[::-1].index(Stage.MERGE)


class Reader:
    """Somebody who looks at main all the time, and notes which whole model was there."""

    def __init__(self, api: HfApi, repo: str) -> None:
        self._api = api
        self._repo = repo
        self._seen: dict[str, int] = {}

    @property
    def layer_counts(self) -> list[int]:
        """The number of layers of each commit seen, in order."""
        return list(self._seen.values())

    def look(self) -> None:
        sha = self._api.model_info(self._repo).sha
        if sha not in self._seen:
            self._seen[sha] = self._check(sha)

    def _check(self, sha: str) -> int:
        files = set(self._api.list_repo_files(self._repo, revision=sha))
        index = self._read("model.safetensors.index.json", sha)
        assert {name for name in files if name.endswith(".safetensors")} == set(index["weight_map"].values())
        headers = self._api.get_safetensors_metadata(self._repo, revision=sha)
        assert dict(headers.weight_map) == index["weight_map"]
        layers = {name.split(".")[2] for name in index["weight_map"] if name.startswith("model.layers.")}
        assert len(layers) == self._read("config.json", sha)["num_hidden_layers"]
        return len(layers)

    def _read(self, name: str, sha: str) -> dict:
        return json.loads(Path(self._api.hf_hub_download(self._repo, name, revision=sha)).read_text())


def test_a_reader_of_main_sees_the_old_model_or_the_new_one(
    hub: LocalHub, api: HfApi, parents: Parents, tmp_path: Path
) -> None:
    repo = new_repo()
    old = write_llama(tmp_path, seed=5, layers=6, hidden=64, vocab=512, max_shard_size="60KB")
    push_folder(hub.token, repo, old)
    commits = len(api.list_repo_commits(repo))
    reader = Reader(api, repo)
    hub.faults.add("POST .*/commit/", delay_seconds=0.05)
    with watching(reader.look):
        merge_and_push(parents.recipe(), repo, target_token=hub.token, options=OPTIONS)
    assert reader.layer_counts == [6, SHAPE["layers"]]
    assert len(api.list_repo_commits(repo)) == commits + 1
    assert staged_shards(api, repo) == []
