"""JSON that anybody may have written, read key by key: errors say the path that leads to the fault."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from hubmerge.errors import CardError

_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Item = TypeVar("Item")


def load_entry(text: str, file: str, *, largest_bytes: int) -> Entry:
    """Returns the object that a file holds.

    Raises:
        CardError: It is too large, no JSON, or no object.
    """
    if len(text) > largest_bytes:
        raise CardError(f"{file}: it is larger than {largest_bytes:,} bytes")
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise CardError(f"{file}: it is not JSON ({error})") from error
    return Entry(content, file)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


class Entry:
    """One object of the file.

    Every method raises CardError where the key does not hold what its name says.

    Args:
        value: As JSON has it.
        where: The file, or the path that leads to this object.
        is_root: Whether `where` is the file.
    """

    def __init__(self, value: Any, where: str, *, is_root: bool = True) -> None:
        if not isinstance(value, Mapping):
            raise CardError(f"{where} must be an object")
        self._values = value
        self._where = where
        self._is_root = is_root

    def text(self, key: str) -> str:
        """Returns a text that is not empty."""
        return self._read(key, "a text", _text)

    def integer(self, key: str) -> int:
        """Returns a whole number."""
        return self._read(key, "a whole number", _integer)

    def size(self, key: str) -> int:
        """Returns a number of bytes."""
        return self._read(key, "a number of bytes", _size)

    def sha1(self, key: str) -> str:
        """Returns 40 hexadecimal digits."""
        return self._read(key, "40 hexadecimal digits", lambda value: _matching(_SHA1, value))

    def sha256(self, key: str) -> str:
        """Returns 64 hexadecimal digits."""
        return self._read(key, "64 hexadecimal digits", lambda value: _matching(_SHA256, value))

    def flag(self, key: str) -> bool:
        """Returns true or false."""
        return self._read(key, "true or false", lambda value: value if isinstance(value, bool) else None)

    def path(self, key: str) -> str:
        """Returns a relative path that stays below its root."""
        return self._read(key, "a path inside the repo", _inner_path)

    def optional(self, key: str, read: Callable[[str], Item]) -> Item | None:
        """Returns what one of the methods above reads; None where there is nothing or null."""
        return None if self._values.get(key) is None else read(key)

    def items(self, key: str, read: Callable[[Entry], Item]) -> tuple[Item, ...]:
        """Returns what `read` makes of each object of a list."""
        values = self._read(key, "a list", lambda value: value if isinstance(value, list) else None)
        places = (f"{self._path(key)}[{index}]" for index in range(len(values)))
        return tuple(read(Entry(value, place, is_root=False)) for value, place in zip(values, places, strict=True))

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns a list of texts."""
        return self._read(key, "a list of texts", _texts)

    def entry(self, key: str) -> Entry:
        """Returns the object under a key."""
        return Entry(self._values.get(key), self._path(key), is_root=False)

    def _read(self, key: str, kind: str, accept: Callable[[object], Item | None]) -> Item:
        value = accept(self._values.get(key))
        if value is None:
            raise CardError(f"{self._path(key)} must be {kind}")
        return value

    def _path(self, key: str) -> str:
        return f"{self._where}: {key}" if self._is_root else f"{self._where}.{key}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return None
    return tuple(value)


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _size(value: object) -> int | None:
    size = _integer(value)
    return size if size is not None and size >= 0 else None


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _inner_path(value: object) -> str | None:
    """Returns a relative path that stays below its root on any system, or None."""
    if not isinstance(value, str) or re.search(r"[\\:\x00-\x1f]", value):
        return None
    return value if all(part not in ("", ".", "..") for part in value.split("/")) else None
