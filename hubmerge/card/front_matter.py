"""The YAML at the top of a card that we write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def write_card(metadata: Mapping[str, Any], body: str) -> str:
    """Returns a card of this front matter, keys in the order given, and this body."""
    block = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=2**16)
    return f"---\n{block}---\n\n{body.strip()}\n"


def printable(text: str) -> str:
    """Returns a line of somebody's text without what steers a terminal or turns the direction of writing around."""
    return "".join(each for each in text if each.isprintable())


def texts(value: object) -> tuple[str, ...]:
    """Returns the texts of a metadata value that may be one text, a list of them, or anything."""
    items = value if isinstance(value, list) else [value]
    stripped = (printable(item).strip() for item in items if isinstance(item, str))
    return tuple(item for item in stripped if item)
