"""The YAML at the top of a model card, read as the Hub reads it and as people really write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf
from typing import Any

import yaml

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What YAML can escape and no honest card does: it would steer a terminal, or cannot be written as UTF-8."""

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

LONGEST_NUMBER = 100
"""Characters; longer ones take ever longer to read, and some cannot be written again."""

LONGEST_FRONT_MATTER = 1_000_000
"""Characters; a card with the results of a hundred benchmarks has 200 thousand."""

MOST_OPEN_BRACKETS = 500
"""PyYAML's time grows with the square of their number."""

MOST_VALUES = 200_000
"""Once aliases are expanded: nine anchors that each repeat the one before ten times would make a billion."""

_BRACKET = re.compile(r"[\[\]{}]")

_BLOCK = re.compile(r"\s*---[ \t]*\n(?:(.*?)\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)


class _CardLoader(yaml.SafeLoader):
    """Reads YAML 1.2's booleans, as the Hub does: a bare `no` is Norwegian, not false."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own declaration)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuses merge keys: a dozen lines of them can stand for a billion values."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise ValueError("it has a merge key (<<)")

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Returns the text of a scalar."""
        scalar = super().construct_scalar(node)
        if node.tag in _NUMBERS and len(scalar) > LONGEST_NUMBER:
            raise ValueError(f"it has a number of {len(scalar):,} characters")
        if found := _UNPRINTABLE.search(scalar):
            raise ValueError(f"it has the character {found[0]!a}")
        return scalar


_CardLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
)


def parse_front_matter(content: bytes) -> Mapping[str, Any]:
    """Returns a card's metadata, empty if it has none that can be read: a parent's card is not ours to mend."""
    try:
        return read_metadata(split_card(content.decode(errors="replace"))[0])
    except ValueError:
        return {}


def split_card(text: str) -> tuple[str, str]:
    """Returns a card's front matter, without its fences, and its body.

    Byte order marks are dropped, and lines end with a line feed alone.
    """
    clean = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    block = _BLOCK.match(clean)
    if block is None:
        return "", clean
    return block.group(1) or "", clean[block.end() :]


def read_metadata(front_matter: str) -> dict[str, Any]:
    """Returns the mapping that the front matter holds.

    Raises:
        ValueError: It is not YAML or not a mapping; the message says which.
    """
    if len(front_matter) > LONGEST_FRONT_MATTER:
        raise ValueError(f"it has more than {LONGEST_FRONT_MATTER:,} characters")
    if open_brackets(front_matter) > MOST_OPEN_BRACKETS:
        raise ValueError("it is nested too deeply")
    try:
        data = yaml.load(front_matter, Loader=_CardLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-02-31
        raise ValueError(f"it is not YAML ({' '.join(str(error).split())})") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError("it is not a mapping of keys to values")
    if _count(data, {}) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values, or refers to itself")
    return {key: value for key, value in data.items() if isinstance(key, str)}


def open_brackets(text: str) -> int:
    """Returns how many brackets and braces of a text are open at a time at most, whether quoted or not."""
    depth = most = 0
    for sign in _BRACKET.findall(text):
        depth = depth + 1 if sign in "[{" else max(0, depth - 1)
        most = max(most, depth)
    return most


def _count(value: object, known: dict[int, float]) -> float:
    """Returns how many values one holds, those that aliases repeat every time; of a circle, infinity."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = inf  # until it is known: whoever meets it now is inside of it
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(each, known) for each in inner)
    return known[id(value)]
