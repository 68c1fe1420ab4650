from __future__ import annotations

import pytest
from datasets import Dataset

from hubmerge.trainer.data_checks import tokenised
from hubmerge.trainer.order import in_training_order, longest_first
from hubmerge.trainer.settings import Training
from tests.trainer.tokenizers_made import character_tokenizer


def test_longest_pairs_come_first_and_the_others_in_seeded_order() -> None:
    tokens = [3, 9, 5, 9, 1, 7]
    order = longest_first(tokens, first=2, seed=1)
    assert order[:2] == [1, 3]
    assert sorted(order) == list(range(6))
    assert order == longest_first(tokens, first=2, seed=1) != longest_first(tokens, first=2, seed=2)


def in_order(rows: list[dict[str, str]], training: Training) -> tuple[list[int], int]:
    """Returns the lengths of the chosen answers in their order, and how many pairs there are."""
    tokenizer = character_tokenizer(None)
    ordered, pairs = in_training_order(Dataset.from_list(rows), [tokenised(row, tokenizer) for row in rows], training)
    return [len(answer) for answer in ordered["chosen"]], pairs


def test_training_begins_with_the_longest_pairs_and_leaves_out_what_has_no_room() -> None:
    lengths = [3, 12, 5, 9, 30]
    rows = [{"prompt": "p" * (25 if n == 30 else 2), "chosen": "c" * n, "rejected": "r"} for n in lengths]
    ordered, pairs = in_order(rows, Training(max_length=20, batch_size=2, grad_accumulation=1))
    assert ordered[:2] == [12, 9]
    assert sorted(ordered) == [3, 5, 9, 12]
    assert pairs == 4


@pytest.mark.parametrize("length", [{"epochs": 3}, {"max_steps": 15}])
def test_each_epoch_has_all_pairs_in_an_order_of_its_own(length: dict[str, int]) -> None:
    rows = [{"prompt": "p", "chosen": "c" * n, "rejected": "r"} for n in range(2, 12)]
    training = Training(max_length=20, batch_size=2, grad_accumulation=1, seed=3, **length)
    ordered, pairs = in_order(rows, training)
    epochs = [ordered[start : start + 10] for start in (0, 10, 20)]
    assert (len(ordered), pairs) == (30, 10)
    assert all(sorted(epoch) == list(range(2, 12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert (ordered, pairs) == in_order(rows, training)


def test_a_part_of_an_epoch_has_a_part_of_the_pairs() -> None:
    rows = [{"prompt": "p", "chosen": "c" * n, "rejected": "r"} for n in range(2, 12)]
    ordered, pairs = in_order(rows, Training(epochs=0.5, max_length=20, batch_size=1, grad_accumulation=1))
    assert (len(ordered), pairs) == (5, 5)
    assert ordered[0] == 11
