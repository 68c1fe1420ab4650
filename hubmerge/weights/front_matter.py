"""The YAML between the first two `---` lines of a model card, as people really write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

_FRONT_MATTER = re.compile(r"\s*---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)


def parse_front_matter(content: bytes) -> Mapping[str, Any]:
    """Returns a card's metadata, empty if it has none that can be read.

    A byte order mark, Windows line ends and bytes that are not UTF-8 are forgiven; a parent's card is not ours to mend.
    """
    text = content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}
    try:
        metadata = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date such as 2024-02-31
        return {}
    return metadata if isinstance(metadata, dict) else {}
