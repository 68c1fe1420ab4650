"""The order in which pairs are trained on: the longest batch first, so that what does not fit fails at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubmerge.trainer.data_checks import DataReport, report, tokenised

if TYPE_CHECKING:
    from datasets import Dataset


def in_training_order(
    rows: Dataset, tokenizer: Any, *, max_length: int, batch_size: int, seed: int
) -> tuple[Dataset, DataReport]:
    """Returns the pairs that can be trained on in their order, and what was found in all of them.

    A trainer that takes them one after the other has the longest batch first; the others come in random order. Pairs
    whose prompt alone fills `max_length` are left out, as TRL would do.

    Raises:
        DataError: No pair is left, or the chat template refuses one.
    """
    counted = [tokenised(pair, tokenizer) for pair in rows]
    found = report(counted, max_length=max_length, eos_token=tokenizer.eos_token)
    kept = [number for number, pair in enumerate(counted) if pair.prompt < max_length]
    tokens = [min(counted[number].tokens, max_length) for number in kept]
    order = longest_first(tokens, first=batch_size, seed=seed)
    return rows.select([kept[place] for place in order]), found


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
