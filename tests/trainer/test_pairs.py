from __future__ import annotations

from typing import Any

import pytest

from hubmerge.trainer.pairs import BadRow, key_of, pair_of
from hubmerge.trainer.presets import PRESETS

NAMES = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "system": "system"}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


PAIR = {"prompt": [user("2+2?")], "chosen": answer("4"), "rejected": answer("5")}

CHATML_ROW = {
    "prompt": "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n",
    "chosen": "4<|im_end|>\n",
    "rejected": "5<|im_end|>\n",
}
ROWS: dict[str, dict[str, Any]] = {
    "Intel/orca_dpo_pairs": {"system": "", "question": "2+2?", "chosen": "4", "rejected": "5"},
    "mlabonne/chatml_dpo_pairs": CHATML_ROW,
    "mlabonne/chatml-OpenHermes2.5-dpo-binarized-alpha": CHATML_ROW,
    "argilla/distilabel-intel-orca-dpo-pairs": {"system": None, "input": "2+2?", "chosen": "4", "rejected": "5"},
    "jondurbin/truthy-dpo-v0.1": {"id": "1", "system": "", "prompt": "2+2?", "chosen": "4", "rejected": "5"},
    "argilla/OpenHermes2.5-dpo-binarized-alpha": {
        "prompt": "2+2?",
        "chosen": [user("2+2?"), *answer("4")],
        "rejected": [user("2+2?"), *answer("5")],
    },
    "argilla/ultrafeedback-binarized-preferences-cleaned": {
        "prompt": "2+2?",
        "chosen": [user("2+2?"), *answer("4")],
        "rejected": [user("2+2?"), *answer("5")],
    },
    "HuggingFaceH4/ultrafeedback_binarized": {
        "prompt": "2+2?",
        "chosen": [user("2+2?"), *answer("4")],
        "rejected": [user("2+2?"), *answer("5")],
    },
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_known_data_set_says_the_same_pair_in_its_own_way(name: str) -> None:
    assert pair_of(ROWS[name], PRESETS[name].columns, chat=True) == PAIR


def test_system_message_goes_before_the_prompt() -> None:
    row = {"system": "Be short.", "prompt": "2+2?", "chosen": "4", "rejected": "5"}
    assert pair_of(row, NAMES, chat=True)["prompt"] == [{"role": "system", "content": "Be short."}, user("2+2?")]
    assert pair_of(row, NAMES, chat=False)["prompt"] == "Be short.\n\n2+2?"


def test_text_stays_text_without_a_chat() -> None:
    row = {"prompt": "2+2=", "chosen": "4", "rejected": "5"}
    assert pair_of(row, NAMES, chat=False) == row


def test_earlier_turns_belong_to_the_prompt() -> None:
    turns = [user("hi"), *answer("hello"), user("2+2?")]
    row = {"chosen": [*turns, *answer("4")], "rejected": [*turns, *answer("5")]}
    assert pair_of(row, NAMES, chat=True) == {"prompt": turns, "chosen": answer("4"), "rejected": answer("5")}


def test_answers_alone_take_the_prompt_from_its_column() -> None:
    row = {"prompt": [user("2+2?")], "chosen": answer("4"), "rejected": answer("5")}
    assert pair_of(row, NAMES, chat=True) == PAIR


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "2+2?", "chosen": "4", "rejected": "4"}, "chosen and rejected are the same"),
        ({"prompt": "2+2?", "chosen": "4", "rejected": None}, "rejected is empty"),
        ({"prompt": "2+2?", "chosen": " ", "rejected": "5"}, "chosen is empty"),
        ({"prompt": None, "chosen": "4", "rejected": "5"}, "prompt is empty"),
        ({"prompt": "2+2?", "chosen": "4", "rejected": 5}, "rejected is neither text nor a conversation"),
        ({"chosen": [user("a"), *answer("4")], "rejected": "5"}, "rejected is not a conversation"),
        ({"chosen": [user("a")], "rejected": [user("a")]}, "the conversation does not end with the assistant"),
        ({"chosen": [{"from": "gpt"}], "rejected": []}, "chosen has a message without role and content"),
        (
            {"chosen": [user("a"), *answer("4")], "rejected": [user("b"), *answer("5")]},
            "chosen and rejected answer different prompts",
        ),
    ],
)
def test_row_that_is_no_preference_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as error:
        pair_of(row, NAMES, chat=True)
    assert str(error.value) == reason


def test_rows_that_the_makers_advise_against_are_not_kept() -> None:
    preset = PRESETS["argilla/distilabel-intel-orca-dpo-pairs"]
    good = {"status": "unchanged", "chosen_score": 9.0, "in_gsm8k_train": False}
    assert preset.keeps(good)
    assert not preset.keeps({**good, "status": "tie"})
    assert not preset.keeps({**good, "chosen_score": None})
    assert not preset.keeps({**good, "chosen_score": "n/a"})
    assert not preset.keeps({**good, "in_gsm8k_train": True})


def test_key_does_not_depend_on_the_order_of_entries() -> None:
    assert key_of([{"role": "user", "content": "ä"}]) == key_of([{"content": "ä", "role": "user"}])
