"""The small JSON files around weights: config.json, indexes, adapter configs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hubmerge.errors import SourceError
from hubmerge.weights.files import Files, read_small


def read_json_object(files: Files, path: str, *, limit_bytes: int) -> dict[str, Any]:
    """Returns the members of a JSON file.

    Raises:
        SourceError: There is no such file, it is larger than `limit_bytes`, it is not a JSON object, or its text could
            not be written again.
        TransferError: It did not arrive.
    """
    where = f"{files.label}/{path}"
    try:
        members = json.loads(read_small(files, path, limit_bytes=limit_bytes))
    except RecursionError:
        raise SourceError(f"{where} is not JSON: it is nested too deeply") from None
    except ValueError as error:
        raise SourceError(f"{where} is not JSON: {error}") from None
    if not isinstance(members, dict):
        raise SourceError(f"{where} is not a JSON object")
    if not _is_unicode(members):
        raise SourceError(f"{where} holds text that is not valid Unicode")
    return members


def _is_unicode(members: dict[str, Any]) -> bool:
    """Returns whether no string holds half a character, which JSON can escape and UTF-8 cannot write."""
    try:
        json.dumps(members, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what config.json says of the language model of a larger whole; empty if it has no such part."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else {}
