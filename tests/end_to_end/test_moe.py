"""Mixtures of experts from the Hub to the Hub: what is read for their routers, and that an interrupted push goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_and_push, merge_to_folder
from hubmerge.merge.progress import Stage
from hubmerge.weights.shards import hash_file
from tests.end_to_end.merges import (
    SHAPE,
    Parents,
    Recorder,
    new_repo,
    shard_hashes,
    staged_shards,
    weight_bytes_read,
)
from tests.merge.moe.experts import PROMPTS, mixture

OPTIONS = MergeOptions(shard_bytes=700_000)


class _Stopped(BaseException):
    """What Ctrl-C is to a merge."""


class _StopsAfter(Recorder):
    """Stops the merge once a file has been staged."""

    def advance(self, stage: Stage, size_bytes: int) -> None:
        super().advance(stage, size_bytes)
        if stage is Stage.STAGE:
            raise _Stopped


def recipe(models: Any, **top: Any) -> Any:
    first, second = models
    return mixture(first, first, second, prompts=PROMPTS, **top)


@pytest.fixture(scope="module")
def expected(parents: Parents, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("mixture") / "moe"
    merge_to_folder(recipe(parents.folders, gate_mode="hidden"), folder, options=OPTIONS)
    return {path.name: hash_file(path) for path in sorted(folder.glob("*.safetensors"))}


def test_a_pushed_mixture_is_the_one_made_on_the_disk_and_reads_what_was_planned(
    hub: LocalHub, api: HfApi, parents: Parents, expected: dict[str, str]
) -> None:
    repo, recorder = new_repo(), Recorder()
    hub.requests.clear()
    merge_and_push(
        recipe(parents.repos, gate_mode="hidden"), repo, target_token=hub.token, options=OPTIONS, progress=recorder
    )
    assert shard_hashes(api, repo) == expected
    assert recorder.plan is not None
    assert recorder.total(Stage.READ) == recorder.plan.read_bytes
    rows = 10  # the first token of texts, nine words, and the filling, which is token 0
    row_bytes = 2 * SHAPE["hidden"]
    extra = weight_bytes_read(hub) - recorder.plan.read_bytes - parents.header_bytes
    assert extra == (rows + 1) * row_bytes
    assert "moe" in api.model_info(repo).card_data.tags


def test_an_interrupted_push_goes_on_without_the_routers_that_have_arrived(
    hub: LocalHub, api: HfApi, parents: Parents, expected: dict[str, str]
) -> None:
    repo, again = new_repo(), Recorder()
    said = recipe(parents.repos, gate_mode="hidden")
    with pytest.raises(_Stopped):
        merge_and_push(said, repo, target_token=hub.token, options=OPTIONS, progress=_StopsAfter())
    arrived = staged_shards(api, repo)
    assert "model-00001-of-00004.safetensors" in arrived
    merge_and_push(said, repo, target_token=hub.token, options=OPTIONS, progress=again)
    assert shard_hashes(api, repo) == expected
    assert again.skipped == arrived
    assert not any("Finding the routers" in sentence for sentence in again.sentences)


def test_of_a_table_of_embeddings_only_the_rows_of_the_prompts_are_read(
    hub: LocalHub, parents: Parents, tmp_path: Path
) -> None:
    recorder = Recorder()
    hub.requests.clear()
    merge_to_folder(recipe(parents.repos, gate_mode="cheap_embed"), tmp_path / "moe", progress=recorder)
    assert recorder.plan is not None
    assert weight_bytes_read(hub) - recorder.plan.read_bytes - parents.header_bytes == 11 * 2 * SHAPE["hidden"]
