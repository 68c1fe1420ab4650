from __future__ import annotations

import pytest
from huggingface_hub import RepoCard

from hubmerge.card.front_matter import texts, write_card
from hubmerge.weights.front_matter import read_metadata, split_card


def test_norwegian_is_written_in_quotes():
    assert "- 'no'\n" in write_card({"language": ["no"]}, "")


def test_values_cannot_leave_the_front_matter():
    hostile = {"license_name": "x\n---\n# owned\n---", "tags": ["a: b", "---", "'", "<!-- -->", "\u2028"]}
    card = write_card(hostile, "body")
    assert read_metadata(split_card(card)[0]) == hostile
    assert split_card(card)[1].strip() == "body"
    assert RepoCard(card).text.strip() == "body"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("en", ("en",)),
        (["en", " fr "], ("en", "fr")),
        (None, ()),
        (False, ()),
        ({"a": 1}, ()),
        (["en", None, 3, ["x"], ""], ("en",)),
    ],
)
def test_texts_of_any_value(value: object, expected: tuple[str, ...]):
    assert texts(value) == expected
