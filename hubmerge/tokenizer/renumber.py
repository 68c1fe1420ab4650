"""Token ids and vocabulary sizes in config.json and generation_config.json, after a change of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

ID_KEYS = ("_token_id", "_token_ids", "_token_index", "suppress_tokens")
"""What the names of settings end with that hold an id or a list of ids."""

SIZE_KEY = "vocab_size"

Translate = Callable[[int], int | None]


def translation(old: Mapping[str, int], new: Mapping[str, int]) -> Translate:
    """Returns the function from ids of one vocabulary to those of another; None for tokens that the other lacks."""
    tokens = {number: token for token, number in old.items()}
    return lambda number: new.get(tokens.get(number, ""))


def renumbered(config: Mapping[str, Any], stated: Mapping[str, Any], translate: Translate) -> dict[str, Any]:
    """Returns a configuration with the ids of another vocabulary.

    Args:
        config: As it is.
        stated: The same file of the model whose vocabulary is taken over; what it states holds.
        translate: Gives the other ids; where there is none the setting becomes None.
    """
    result: dict[str, Any] = {}
    for key, value in config.items():
        other = stated.get(key)
        if isinstance(value, Mapping):
            result[key] = renumbered(value, other if isinstance(other, Mapping) else {}, translate)
        elif key.endswith(ID_KEYS):
            result[key] = _translated(value, translate) if other is None else other
        else:
            result[key] = value
    return result


def resized(config: Mapping[str, Any], sizes: Mapping[int, int]) -> dict[str, Any]:
    """Returns config.json with every vocabulary size, at any depth, replaced by what `sizes` gives for it."""
    return {key: _resized(key, value, sizes) for key, value in config.items()}


def _resized(key: str, value: Any, sizes: Mapping[int, int]) -> Any:
    if isinstance(value, Mapping):
        return resized(value, sizes)
    return sizes.get(value, value) if key.startswith(SIZE_KEY) and isinstance(value, int) else value


def _translated(value: Any, translate: Translate) -> Any:
    if isinstance(value, list):
        kept = [_translated(item, translate) for item in value]
        return [item for item in kept if item is not None] or None
    return translate(value) if isinstance(value, int) and not isinstance(value, bool) else value
