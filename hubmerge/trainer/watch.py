"""A training watched while it runs: it ends where numbers stop being numbers, and says where nothing is learned."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hubmerge.errors import TrainError
from hubmerge.trainer.budget import gigabytes
from hubmerge.trainer.progress import DpoProgress, Step

if TYPE_CHECKING:
    from transformers import TrainerCallback

WINDOW = 20
"""Steps over which margins are averaged before anything is said of them."""

PATIENCE_STEPS = 60
"""Steps after the warm-up without a margin above its noise that are no longer taken for a slow start."""

COLLAPSE_SHARE = 0.1
"""Chosen answers that lost this share of their log-probability are being unlearned together with the rejected."""

OVER_BUDGET = 1.02
"""Share of the budget's tensors beyond which it was wrong."""

Log = Mapping[str, float]


class Watch:
    """Looks at what TRL logs after each step.

    Args:
        beta: Of the loss; rewards are beta times log-ratios.
        warmup_steps: Steps in which little can be learned.
        total: Steps of the training.
        budget_bytes: What tensors may take on the GPU.
        progress: Told of every step.

    Attributes:
        warnings: What was found, one sentence each.
    """

    def __init__(self, *, beta: float, warmup_steps: int, total: int, budget_bytes: int, progress: DpoProgress) -> None:
        self.warnings: list[str] = []
        self._beta = beta
        self._patience = warmup_steps + PATIENCE_STEPS
        self._total = total
        self._budget_bytes = budget_bytes
        self._progress = progress
        self._recent: list[Log] = []
        self._said: set[str] = set()
        self._clock, self._tokens = time.monotonic(), 0.0

    def see(self, number: int, log: Log, *, memory_bytes: int) -> None:
        """Takes what was logged after step `number`.

        Raises:
            TrainError: The loss or the gradients are no numbers.
        """
        check_finite(number, log)
        self._recent = [*self._recent, log][-WINDOW:]
        self._progress.step(self._step(number, log, memory_bytes))
        if memory_bytes > OVER_BUDGET * self._budget_bytes:
            self._warn("memory", _over_budget(number, memory_bytes, self._budget_bytes))
        if len(self._recent) == WINDOW:
            self._judge(number)

    def _step(self, number: int, log: Log, memory_bytes: int) -> Step:
        now, tokens = time.monotonic(), log.get("num_tokens", 0.0)
        rate = max(0.0, tokens - self._tokens) / max(now - self._clock, 1e-9)
        self._clock, self._tokens = now, tokens
        return Step(
            number=number,
            total=self._total,
            loss=log["loss"],
            margin=log.get("rewards/margins", 0.0),
            accuracy=log.get("rewards/accuracies", 0.0),
            tokens_per_second=rate,
            memory_bytes=memory_bytes,
            budget_bytes=self._budget_bytes,
        )

    def _judge(self, number: int) -> None:
        margins = [log.get("rewards/margins", 0.0) for log in self._recent]
        mean = sum(margins) / WINDOW
        noise = math.sqrt(sum((margin - mean) ** 2 for margin in margins) / (WINDOW * (WINDOW - 1)))
        if number >= self._patience and mean <= 2 * noise:
            self._warn("learning", _no_learning(number, mean))
        log_ratio = self._mean("rewards/chosen") / self._beta
        reference = self._mean("logps/chosen") - log_ratio
        if log_ratio < -COLLAPSE_SHARE * abs(reference):
            self._warn("collapse", _collapse(number, reference, log_ratio))

    def _mean(self, key: str) -> float:
        return sum(log.get(key, 0.0) for log in self._recent) / len(self._recent)

    def _warn(self, kind: str, sentence: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self.warnings.append(sentence)
            self._progress.say(f"! {sentence}")


def check_finite(number: int, log: Log) -> None:
    """Raises TrainError if what step `number` logged is no number."""
    for key, called in (("loss", "the loss"), ("grad_norm", "the norm of the gradients")):
        value = log.get(key, 0.0)
        if not math.isfinite(value):
            raise TrainError(
                f"{called} became {value} in step {number}",
                hint="Lower the learning rate, or train in bf16; the last checkpoint before it is kept.",
            )


def callback(watch: Watch) -> TrainerCallback:
    """Returns what makes transformers' Trainer report to a watch."""
    import torch
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                used = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
                watch.see(state.global_step, logs, memory_bytes=used)

    return Reporter()


def _over_budget(number: int, memory_bytes: int, budget_bytes: int) -> str:
    return (
        f"by step {number:,} tensors took {gigabytes(memory_bytes)} of the GPU, and the budget says "
        f"{gigabytes(budget_bytes)}; a shorter max_length leaves room"
    )


def _no_learning(number: int, mean: float) -> str:
    return (
        f"after {number:,} steps the rewards' margin is {mean:.2g}, which is no more than its noise: nothing is "
        "learned; the learning rate may be too low"
    )


def _collapse(number: int, reference: float, log_ratio: float) -> str:
    return (
        f"by step {number:,} the chosen answers lost {-log_ratio:.3g} of their {-reference:.3g} nats of "
        "log-probability too: the model unlearns both answers; a higher beta or a lower learning rate keeps it closer"
    )
