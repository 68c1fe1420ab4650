from __future__ import annotations

import pytest
from huggingface_hub import RepoCard

from hubmerge.card.front_matter import read_metadata, split_card, texts, write_card


@pytest.mark.parametrize(
    ("card", "front_matter", "body"),
    [
        ("---\nlicense: mit\n---\n# Title\n", "license: mit", "# Title\n"),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n# Title\r\n", "license: mit", "# Title\n"),
        ("---\n---\nbody", "", "body"),
        ("---\nlicense: mit\n---", "license: mit", ""),
        ("\n---\nlicense: mit\n---  \nbody", "license: mit", "body"),
        ("# No front matter\n\n---\n\nrule\n", "", "# No front matter\n\n---\n\nrule\n"),
        ("---\nnever closed\n", "", "---\nnever closed\n"),
        ("", "", ""),
    ],
)
def test_a_card_is_split(card: str, front_matter: str, body: str):
    assert split_card(card) == (front_matter, body)


def test_no_is_a_language_as_it_is_for_the_hub():
    assert read_metadata("language: no\ninference: false") == {"language": "no", "inference": False}


def test_norwegian_is_written_in_quotes():
    assert "- 'no'\n" in write_card({"language": ["no"]}, "")


@pytest.mark.parametrize(
    ("front_matter", "problem"),
    [
        ("- a\n- b", "it is not a mapping of keys to values"),
        ("just text", "it is not a mapping of keys to values"),
        ("[" * 5000, "it is not YAML (maximum recursion depth exceeded"),
        ("date: 2024-13-45", "it is not YAML (month must be in 1..12"),
        ("a: !!python/object/apply:os.system [id]", "it is not YAML (could not determine a constructor"),
    ],
)
def test_hostile_front_matter_is_refused(front_matter: str, problem: str):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is what follows)
        read_metadata(front_matter)
    assert str(caught.value).startswith(problem)


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
