"""The order in which pairs are trained on: the longest batch first, so that what does not fit fails at once."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hubmerge.trainer.data_checks import TokenisedPair
from hubmerge.trainer.settings import Training

if TYPE_CHECKING:
    from datasets import Dataset


def in_training_order(rows: Dataset, lengths: Sequence[TokenisedPair], training: Training) -> tuple[Dataset, int]:
    """Returns all rows of a training in the order in which it takes them, and how many different ones they are.

    The longest batch comes first; all others come in random order, another one in each epoch. Pairs whose prompt alone
    fills `max_length` are left out, as TRL would do.

    Args:
        rows: What is trained on in one epoch.
        lengths: Of each row.
        training: As the budget decided it.
    """
    assert training.max_length is not None
    assert training.batch_size is not None
    kept = [number for number, pair in enumerate(lengths) if pair.prompt < training.max_length]
    tokens = [min(lengths[number].tokens, training.max_length) for number in kept]
    count = examples_of(training, len(kept))
    first = longest_first(tokens, first=training.batch_size, seed=training.seed)[:count]
    order = [*first, *later_epochs(len(kept), count - len(first), seed=training.seed)]
    return rows.select([kept[place] for place in order]), len(first)


def examples_of(training: Training, pairs: int) -> int:
    """Returns how many pairs a training takes in all, those that come again counted again."""
    if training.max_steps is None:
        return math.ceil(training.epochs * pairs)
    assert training.batch_size is not None
    assert training.grad_accumulation is not None
    return training.max_steps * training.batch_size * training.grad_accumulation


def later_epochs(pairs: int, count: int, *, seed: int) -> list[int]:
    """Returns the first `count` row numbers of the epochs after the first, each in a random order of its own."""
    numbers: list[int] = []
    for epoch in range(1, 1 + math.ceil(count / pairs)):
        numbers += random.Random(f"{seed} {epoch}").sample(range(pairs), pairs)
    return numbers[:count]


def longest_first(tokens: Sequence[int], *, first: int, seed: int) -> list[int]:
    """Returns row numbers in random order, except that the `first` longest rows come first.

    A batch that does not fit the memory then fails in the first minute, not after hours.

    Args:
        tokens: The longer sequence of each pair.
        first: Pairs in one batch.
        seed: Of the order of the others.
    """
    by_length = sorted(range(len(tokens)), key=lambda row: (-tokens[row], row))
    rest = by_length[first:]
    random.Random(seed).shuffle(rest)
    return by_length[:first] + rest
