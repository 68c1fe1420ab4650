"""Which output files are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hubmerge.card.lock import LockedOutput, LockFacts
from hubmerge.merge.fingerprint import shard_contents
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import plan_recipe
from hubmerge.merge.plan import Plan
from hubmerge.republish.work import kept_shards, work_of
from tests.checkpoints import write_llama


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("models")
    models = [str(write_llama(folder / str(seed), seed=seed)) for seed in (1, 2)]
    recipe = {"merge_method": "linear", "models": [{"model": name, "parameters": {"weight": 0.5}} for name in models]}
    return plan_recipe(recipe, MergeOptions(shard_bytes=3_000))


def lock(plan: Plan) -> LockFacts:
    """Returns a lock file of the same files under other names."""
    contents = shard_contents(plan)
    outputs = tuple(
        LockedOutput(
            path=f"old-{shard.filename}",
            size_bytes=shard.size_bytes,
            sha256="a" * 64,
            made_from=contents[shard.filename],
        )
        for shard in plan.shards
    )
    return LockFacts(hubmerge_version="", torch_version="", fingerprint="", seed=0, parents=(), outputs=outputs)


def test_a_file_is_found_under_another_name(plan: Plan) -> None:
    kept = kept_shards(plan, lock(plan), {})
    assert [each.source for each in kept] == [f"old-{shard.filename}" for shard in plan.shards]
    work = work_of(plan, kept)
    assert (work.made, work.read_bytes, work.write_bytes) == ((), 0, 0)


def test_files_of_another_size_or_of_unknown_content_are_made_again(plan: Plan) -> None:
    known = lock(plan)
    first, second, *others = known.outputs
    doubtful = (replace(first, size_bytes=first.size_bytes + 1), replace(second, made_from=None), *others)
    work = work_of(plan, kept_shards(plan, replace(known, outputs=doubtful), {}))
    assert work.made == tuple(shard.filename for shard in plan.shards[:2])
    assert work.write_bytes == sum(shard.size_bytes for shard in plan.shards[:2])
    assert 0 < work.read_bytes < plan.read_bytes


def test_without_a_record_everything_is_made(plan: Plan) -> None:
    work = work_of(plan, kept_shards(plan, replace(lock(plan), outputs=()), {}))
    assert (work.kept, work.read_bytes, work.write_bytes) == ((), plan.read_bytes, plan.write_bytes)
