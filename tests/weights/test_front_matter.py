from __future__ import annotations

import pytest

from hubmerge.weights.front_matter import parse_front_matter, read_metadata, split_card


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


@pytest.mark.parametrize(
    ("front_matter", "problem"),
    [
        ("- a\n- b", "it is not a mapping of keys to values"),
        ("just text", "it is not a mapping of keys to values"),
        ("[" * 1000, "it is nested too deeply"),
        ("date: 2024-13-45", "it is not YAML (month must be in 1..12"),
        (r'license: "\ud800"', r"it is not YAML (it has the character '\ud800')"),
        (r'tags: ["\e[31mred"]', r"it is not YAML (it has the character '\x1b')"),
        ("a: !!python/object/apply:os.system [id]", "it is not YAML (could not determine a constructor"),
    ],
)
def test_hostile_front_matter_is_refused(front_matter: str, problem: str):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is what follows)
        read_metadata(front_matter)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    "content", [b"", b"# none", b"---\n- list\n---\n", b"---\n{{{\n---\n", b"\xff\xfe", b"---\n&a [*a]\n---\n"]
)
def test_a_card_that_cannot_be_read_has_no_metadata(content: bytes):
    assert parse_front_matter(content) == {}


def test_bytes_that_are_not_utf8_are_forgiven():
    assert parse_front_matter(b"---\nlicense: mit\nauthor: \xff\n---\n")["license"] == "mit"
