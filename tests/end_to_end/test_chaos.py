"""A short part of `scripts/chaos.py`, the same on every run; docs/reliability.md has the totals of a long one."""

from __future__ import annotations

import pytest

from hubmerge.localhub import LocalHub
from tests.chaos.cases import draw
from tests.chaos.play import World, build_world, play

SEEDS = (2, 5, 7, 11, 2014)
"""2014 deletes the target during an upload: huggingface_hub then raises a RuntimeError."""


@pytest.fixture(scope="module")
def world(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(hub, tmp_path_factory.mktemp("chaos"))


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong_nothing_is_lost_or_half_published(world: World, seed: int) -> None:
    outcome = play(draw(seed), world)
    assert outcome.problem is None, f"{outcome.case}: {outcome.message}"


def test_a_seed_is_always_the_same_case() -> None:
    assert draw(7) == draw(7)
