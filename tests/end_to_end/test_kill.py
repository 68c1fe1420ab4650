"""A push killed without warning, again and again: the same command goes on, and the same bytes are published."""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import plan_recipe
from tests.end_to_end.merges import (
    OPTIONS,
    SHARD_BYTES,
    SHARD_COUNT,
    Parents,
    new_repo,
    shard_hashes,
    staged_shards,
    weight_bytes_read,
)

KILLS = 3
KILLED_AFTER_REQUESTS = range(18, 55)
"""From the first look at the target to the last shard: a push of four shards asks the Hub about 64 times."""
PATIENCE_SECONDS = 100


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Makes processes that begin with everything imported, so that many can be started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "hubmerge.merge.pipeline"])
    return context


class Push:
    """The command that merges the parents into one repo."""

    def __init__(self, processes: ForkServerContext, folder: Path, parents: Parents, repo: str, token: str) -> None:
        recipe = folder / "recipe.yml"
        recipe.write_text(str(parents.recipe()))
        options = ["--shard-size", str(SHARD_BYTES), "--target-token", token, "--quiet"]
        self._details = {"target": _run, "args": (["merge-and-push", str(recipe), repo, *options], str(folder))}
        self._processes = processes

    def kill_when(self, condition: Callable[[], bool]) -> None:
        """Runs until something is so."""
        process = self._processes.Process(**self._details)
        process.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
        process.join()

    def finish(self) -> None:
        """Runs to the end."""
        process = self._processes.Process(**self._details)
        process.start()
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == 0


def _run(words: list[str], temporary: str) -> None:
    tempfile.tempdir = temporary
    main(words)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_push_goes_on_from_what_is_staged(
    hub: LocalHub,
    api: HfApi,
    parents: Parents,
    expected: Mapping[str, str],
    processes: ForkServerContext,
    tmp_path: Path,
    seed: int,
) -> None:
    repo, rng, staged = new_repo(), random.Random(seed), set[str]()
    push = Push(processes, tmp_path, parents, repo, hub.token)
    hub.faults.add(f"POST /api/models/{repo}/commit/main", status=503)
    for _ in range(KILLS):
        hub.requests.clear()
        requests = rng.choice(KILLED_AFTER_REQUESTS)
        push.kill_when(lambda: len(hub.requests) >= requests)  # noqa: B023
        assert shard_hashes(api, repo) == {}
        before, staged = staged, set(staged_shards(api, repo))
        assert before <= staged
    hub.faults.clear()
    hub.requests.clear()
    push.finish()
    read_bytes = weight_bytes_read(hub)
    missing = [shard for shard in plan_recipe(parents.recipe(), OPTIONS).shards if shard.filename not in staged]
    tensor_bytes = sum(shard.size_bytes - len(shard.header) for shard in missing)
    assert read_bytes == len(parents.repos) * tensor_bytes + parents.header_bytes
    assert shard_hashes(api, repo) == expected
    assert staged_shards(api, repo) == []


def test_a_push_killed_when_it_had_published_has_nothing_left_to_do(
    hub: LocalHub,
    api: HfApi,
    parents: Parents,
    expected: Mapping[str, str],
    processes: ForkServerContext,
    tmp_path: Path,
) -> None:
    repo = new_repo()
    push = Push(processes, tmp_path, parents, repo, hub.token)
    cleaning = f"DELETE /api/models/{repo}/branch/"
    hub.faults.add(cleaning, delay_seconds=PATIENCE_SECONDS, status=500, count=1)
    hub.requests.clear()
    push.kill_when(lambda: bool(hub.requests.matching(cleaning)))
    head = api.model_info(repo).sha
    assert len(staged_shards(api, repo)) == SHARD_COUNT
    hub.requests.clear()
    push.finish()
    assert weight_bytes_read(hub) == parents.header_bytes
    assert (shard_hashes(api, repo), api.model_info(repo).sha) == (expected, head)
    assert staged_shards(api, repo) == []


def test_a_push_killed_at_any_kind_of_change_to_the_hub_goes_on(
    hub: LocalHub,
    api: HfApi,
    parents: Parents,
    expected: Mapping[str, str],
    processes: ForkServerContext,
    tmp_path: Path,
) -> None:
    repo = new_repo()
    push = Push(processes, tmp_path, parents, repo, hub.token)
    for change in (
        "POST /api/repos/create",
        f"POST /api/models/{repo}/branch/",
        f"POST /api/models/{repo}/preupload/",
        f"POST /api/models/{repo}/commit/hubmerge",
        f"POST /api/models/{repo}/commit/main",
        f"DELETE /api/models/{repo}/branch/",
    ):
        hub.requests.clear()
        push.kill_when(lambda: bool(hub.requests.matching(change)))  # noqa: B023
        hub.faults.clear()
        if api.repo_exists(repo):
            states = [shard_hashes(api, repo, commit.commit_id) for commit in api.list_repo_commits(repo)]
            assert all(state in ({}, expected) for state in states)
    push.finish()
    assert shard_hashes(api, repo) == expected
    assert staged_shards(api, repo) == []
