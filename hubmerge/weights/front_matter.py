"""The YAML at the top of a model card, read as the Hub reads it and as people really write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What YAML can escape and no honest card does: it would steer a terminal, or cannot be written as UTF-8."""

_BLOCK = re.compile(r"\s*---[ \t]*\n(?:(.*?)\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)


class _CardLoader(yaml.SafeLoader):
    """Reads YAML 1.2's booleans, as the Hub does: a bare `no` is Norwegian, not false."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own declaration)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Returns the text of a scalar."""
        scalar = super().construct_scalar(node)
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
    try:
        data = yaml.load(front_matter, Loader=_CardLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-02-31
        raise ValueError(f"it is not YAML ({' '.join(str(error).split())})") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError("it is not a mapping of keys to values")
    return {key: value for key, value in data.items() if isinstance(key, str)}
