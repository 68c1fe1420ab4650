from __future__ import annotations

from datasets import Dataset

from hubmerge.trainer.order import in_training_order, longest_first
from tests.trainer.tokenizers_made import character_tokenizer


def test_longest_pairs_come_first_and_the_others_in_seeded_order() -> None:
    tokens = [3, 9, 5, 9, 1, 7]
    order = longest_first(tokens, first=2, seed=1)
    assert order[:2] == [1, 3]
    assert sorted(order) == list(range(6))
    assert order == longest_first(tokens, first=2, seed=1) != longest_first(tokens, first=2, seed=2)


def test_training_begins_with_the_longest_pairs_and_leaves_out_what_has_no_room() -> None:
    lengths = [3, 12, 5, 9, 30]
    rows = [{"prompt": "p" * (25 if n == 30 else 2), "chosen": "c" * n, "rejected": "r"} for n in lengths]
    ordered, found = in_training_order(
        Dataset.from_list(rows), character_tokenizer(None), max_length=20, batch_size=2, seed=0
    )
    assert [len(answer) for answer in ordered["chosen"]][:2] == [12, 9]
    assert sorted(len(answer) for answer in ordered["chosen"]) == [3, 5, 9, 12]
    assert found.dropped == 0.2
