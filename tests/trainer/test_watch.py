from __future__ import annotations

import math

import pytest

from hubmerge.errors import TrainError
from hubmerge.trainer.watch import PATIENCE_STEPS, WINDOW, Watch
from tests.trainer.tuning import Heard


def log(*, margin: float = 0.1, chosen: float = 0.0, logps: float = -20.0, **others: float) -> dict[str, float]:
    return {"loss": 0.6, "rewards/margins": margin, "rewards/chosen": chosen, "logps/chosen": logps, **others}


def watched(*logs: dict[str, float], memory_bytes: int = 0) -> tuple[Watch, Heard]:
    heard = Heard()
    watch = Watch(beta=0.1, warmup_steps=0, total=len(logs), budget_bytes=10 * 2**30, progress=heard)
    for number, each in enumerate(logs, start=1):
        watch.see(number, each, memory_bytes=memory_bytes)
    return watch, heard


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"loss": math.nan}, "the loss became nan in step 2"),
        ({"grad_norm": math.inf}, "the norm of the gradients became inf in step 2"),
    ],
)
def test_training_ends_where_numbers_are_none(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(TrainError) as error:
        watched(log(), {**log(), **wrong})
    assert str(error.value) == said


def test_margin_that_stays_within_its_noise_is_said_once() -> None:
    flat = [log(margin=(-1) ** step * 1e-3) for step in range(PATIENCE_STEPS + 40)]
    watch, heard = watched(*flat)
    assert watch.warnings == [
        f"after {PATIENCE_STEPS} steps the rewards' margin is 0, which is no more than its noise: nothing is learned; "
        "the learning rate may be too low"
    ]
    assert heard.sentences == [f"! {watch.warnings[0]}"]


def test_margin_that_rises_is_fine() -> None:
    watch, _ = watched(*(log(margin=1e-3 * step) for step in range(PATIENCE_STEPS + 40)))
    assert watch.warnings == []


def test_chosen_answers_that_are_unlearned_too_are_said() -> None:
    watch, _ = watched(*(log(chosen=-0.5, logps=-25.0) for _ in range(WINDOW)))
    assert watch.warnings == [
        f"by step {WINDOW} the chosen answers lost 5 of their 20 nats of log-probability too: the model unlearns both "
        "answers; a higher beta or a lower learning rate keeps it closer"
    ]


def test_memory_beyond_the_budget_is_said_once() -> None:
    watch, heard = watched(log(), log(), memory_bytes=11 * 2**30)
    assert watch.warnings == [
        "by step 1 tensors took 11.0 GB of the GPU, and the budget says 10.0 GB; a shorter max_length leaves room"
    ]
    assert watched(log(), memory_bytes=10 * 2**30)[0].warnings == []
    assert (heard.steps[0].memory_bytes, heard.steps[0].budget_bytes) == (11 * 2**30, 10 * 2**30)


def test_every_step_is_reported() -> None:
    _, heard = watched(log(num_tokens=100.0), log(num_tokens=250.0))
    assert [(step.number, step.total, step.margin) for step in heard.steps] == [(1, 2, 0.1), (2, 2, 0.1)]
    assert all(step.tokens_per_second > 0 for step in heard.steps)
