"""A push killed without warning, at every moment: the same command goes on, and the same bytes are published."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_and_push, merge_to_folder, plan_recipe
from hubmerge.weights.shards import hash_file
from tests.checkpoints import write_llama
from tests.end_to_end.merges import (
    OPTIONS,
    SHARD_COUNT,
    Parents,
    linear,
    new_repo,
    shard_hashes,
    staged_shards,
    weight_bytes_read,
)
from tests.processes import forkserver, run_command

KILLS = 3
KILLED_AFTER_REQUESTS = range(18, 55)
"""From the first look at the target to the last shard: a push of four shards asks the Hub about 64 times."""
PATIENCE_SECONDS = 100
SMALL = MergeOptions(shard_bytes=8_000, lineage=False, diagnostics=False)
"""Two shards of the smallest models, from folders: every request is one to the target."""


class Push:
    """The command that merges a recipe into one repo."""

    def __init__(
        self, folder: Path, recipe: dict[str, Any], repo: str, token: str, options: MergeOptions = OPTIONS
    ) -> None:
        (folder / "recipe.yml").write_text(str(recipe))
        words = ["merge-and-push", str(folder / "recipe.yml"), repo, "--target-token", token, "--quiet"]
        words += ["--shard-size", str(options.shard_bytes)]
        words += [] if options.lineage else ["--no-lineage"]
        words += [] if options.diagnostics else ["--no-diagnostics"]
        self._arguments = (words, str(folder))

    def kill_when(self, condition: Callable[[], bool]) -> bool:
        """Runs until something is so; returns whether it came to that."""
        process = self._start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (is_so := condition()) and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill() if is_so else None
        process.join()
        assert process.exitcode == (-9 if is_so else 0)
        return is_so

    def finish(self) -> None:
        """Runs to the end."""
        process = self._start()
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == 0

    def _start(self) -> ForkServerProcess:
        process = forkserver().Process(target=run_command, args=self._arguments)
        process.start()
        return process


def states_of_main(api: HfApi, repo: str) -> list[dict[str, str]]:
    """Returns the weights that readers of a repo have ever seen."""
    if not api.repo_exists(repo):
        return []
    return [shard_hashes(api, repo, commit.commit_id) for commit in api.list_repo_commits(repo)]


@pytest.mark.usefixtures("_no_waiting")
def test_a_push_killed_at_any_of_its_requests_goes_on(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    recipe = linear(tuple(write_llama(tmp_path / f"parent-{seed}", seed=seed) for seed in (1, 2)))
    merge_to_folder(recipe, tmp_path / "merged", options=SMALL)
    expected = {path.name: hash_file(path) for path in (tmp_path / "merged").glob("*.safetensors")}
    for number in itertools.count():
        repo = new_repo()
        push = Push(tmp_path, recipe, repo, hub.token, SMALL)
        held = hub.faults.add(".", skip=number, count=1, delay_seconds=PATIENCE_SECONDS, status=503)
        was_killed = push.kill_when(lambda: hub.faults.has_hit(held))  # noqa: B023
        hub.faults.clear()
        assert all(state in ({}, expected) for state in states_of_main(api, repo)), number
        merge_and_push(recipe, repo, target_token=hub.token, options=SMALL)
        assert (shard_hashes(api, repo), staged_shards(api, repo)) == (expected, []), number
        if not was_killed:
            break
    assert number >= 25


def test_a_killed_push_goes_on_from_what_is_staged(
    hub: LocalHub, api: HfApi, parents: Parents, expected: Mapping[str, str], tmp_path: Path
) -> None:
    repo, rng, staged = new_repo(), random.Random(1), set[str]()
    push = Push(tmp_path, parents.recipe(), repo, hub.token)
    hub.faults.add(f"POST /api/models/{repo}/commit/main", status=503)
    for _ in range(KILLS):
        hub.requests.clear()
        requests = rng.choice(KILLED_AFTER_REQUESTS)
        assert push.kill_when(lambda: len(hub.requests) >= requests)  # noqa: B023
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
    hub: LocalHub, api: HfApi, parents: Parents, expected: Mapping[str, str], tmp_path: Path
) -> None:
    repo = new_repo()
    push = Push(tmp_path, parents.recipe(), repo, hub.token)
    cleaning = f"DELETE /api/models/{repo}/branch/"
    hub.faults.add(cleaning, delay_seconds=PATIENCE_SECONDS, status=500, count=1)
    hub.requests.clear()
    assert push.kill_when(lambda: bool(hub.requests.matching(cleaning)))
    head = api.model_info(repo).sha
    assert len(staged_shards(api, repo)) == SHARD_COUNT
    hub.requests.clear()
    push.finish()
    assert weight_bytes_read(hub) == parents.header_bytes
    assert (shard_hashes(api, repo), api.model_info(repo).sha) == (expected, head)
    assert staged_shards(api, repo) == []
