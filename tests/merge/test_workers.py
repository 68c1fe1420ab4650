from __future__ import annotations

import _thread
import gc
import threading
import time
from collections.abc import Iterator

import pytest

from hubmerge.merge.workers import Workers

ROUNDS = 100


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Without the garbage collector, in whose callbacks (hypothesis has one) Python swallows an interrupt."""
    gc.disable()
    yield
    gc.enable()


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("at-work")]


def test_every_task_is_done_by_one_of_so_many_threads() -> None:
    done: list[int] = []
    with Workers(3, "at-work") as workers:
        assert len(names()) == 3
        workers.run([lambda number=number: done.append(number) for number in range(50)])
    assert sorted(done) == list(range(50))
    assert names() == []


def test_the_first_failure_is_raised_and_what_has_not_begun_is_left_undone() -> None:
    done: list[None] = []

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), Workers(1, "at-work") as workers:
        workers.run([fail, *[lambda: done.append(time.sleep(0.01))] * 1_000])
    assert len(done) < 1_000
    assert names() == []


@pytest.mark.usefixtures("no_collection")
def test_an_interrupt_at_any_moment_ends_them_all() -> None:
    for _ in range(ROUNDS):
        with pytest.raises(KeyboardInterrupt):
            interrupted_run()
        assert names() == []


def interrupted_run() -> None:
    with Workers(2, "at-work") as workers:
        workers.run([*[bool] * 20, _thread.interrupt_main, *[bool] * 20])
        time.sleep(1)  # the interrupt is on its way
