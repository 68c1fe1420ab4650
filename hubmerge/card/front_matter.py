"""The YAML at the top of a card: split off, read as the Hub reads it, and written back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

LARGEST_CARD_BYTES = 4 * 2**20
"""Cards of the Hub's largest models stay below 1 MiB; beyond this a card is not read."""

_BLOCK = re.compile(r"\s*---[ \t]*\n(?:(.*?)\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)


class _CardLoader(yaml.SafeLoader):
    """Reads YAML 1.2's booleans, as the Hub does: a bare `no` is Norwegian, not false."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own declaration)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_CardLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
)


def split_card(text: str) -> tuple[str, str]:
    """Returns a card's front matter, without its fences, and its body; lines end with a line feed alone."""
    clean = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    block = _BLOCK.match(clean)
    if block is None:
        return "", clean
    return block.group(1) or "", clean[block.end() :]


def read_metadata(front_matter: str) -> dict[str, Any]:
    """Returns the mapping that the front matter holds.

    Raises:
        ValueError: It is too large, not YAML, or not a mapping; the message says which.
    """
    if len(front_matter) > LARGEST_CARD_BYTES:
        raise ValueError(f"it is larger than {LARGEST_CARD_BYTES:,} bytes")
    try:
        data = yaml.load(front_matter, Loader=_CardLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"it is not YAML ({' '.join(str(error).split())})") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError("it is not a mapping of keys to values")
    return {key: value for key, value in data.items() if isinstance(key, str)}


def write_card(metadata: Mapping[str, Any], body: str) -> str:
    """Returns a card of this front matter, keys in the order given, and this body."""
    block = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=2**16)
    return f"---\n{block}---\n\n{body.strip()}\n"


def texts(value: object) -> tuple[str, ...]:
    """Returns the texts of a metadata value that may be one text, a list of them, or anything."""
    items = value if isinstance(value, list) else [value]
    stripped = (item.strip() for item in items if isinstance(item, str))
    return tuple(item for item in stripped if item)
