"""Typed access to the items of a recipe: what is not as it must be becomes an error or a warning with its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hubmerge.errors import RecipeError
from hubmerge.merge.recipe.yaml_tree import Item

MAX_NUMBER = 1e300
"""Far beyond any weight, and still summable; NaN compares as false and falls out too."""

LENIENT_HINT = "Leave it out, or read past it with --lenient."

_FLAGS: Mapping[str, bool] = {
    **dict.fromkeys(("1", "true", "yes", "on", "t", "y"), True),
    **dict.fromkeys(("0", "false", "no", "off", "f", "n"), False),
}
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


@dataclass
class Remarks:
    """What reading a recipe finds that does not stop it.

    Attributes:
        lenient: Whether a key that the language does not know is a warning instead of an error.
    """

    lenient: bool
    warnings: list[str] = field(default_factory=list)

    def warn(self, item: Item, sentence: str) -> None:
        """Records a warning about an item."""
        self.warnings.append(f"{item.where}: {sentence}")

    def unknown(self, item: Item, sentence: str, guess: str) -> None:
        """Refuses an item that means nothing, or records it in lenient reading; `guess` is what may be meant."""
        if not self.lenient:
            raise fault(item, f"{sentence}{guess}", hint=None if guess else LENIENT_HINT)
        self.warn(item, f"{sentence}{guess} (ignored)")


def fault(item: Item, problem: str, *, hint: str | None = None) -> RecipeError:
    """Returns the error that an item causes."""
    return RecipeError(f"{item.where}: {problem}", hint=hint)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Returns `; did you mean X?` where a known name is close, else nothing."""
    folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.78)
    return f"; did you mean {folded[close[0]]}?" if close else ""


def mapping(item: Item) -> Mapping[str, Item]:
    """Returns the entries of a mapping."""
    if not isinstance(item.value, Mapping):
        raise fault(item, f"must be a mapping, not {item.kind}")
    return item.value


def entries(item: Item) -> tuple[Item, ...]:
    """Returns the entries of a list that has some."""
    if not isinstance(item.value, tuple):
        raise fault(item, f"must be a list, not {item.kind}")
    if not item.value:
        raise fault(item, "the list is empty")
    return item.value


def text(item: Item) -> str:
    """Returns text as it was written, also where YAML took it for a number."""
    if isinstance(item.value, bool) or not isinstance(item.value, (str, int, float)):
        raise fault(item, f"must be text, not {item.kind}")
    if not item.text.strip():
        raise fault(item, "must not be empty")
    return item.text.strip()


def flag(item: Item) -> bool:
    """Returns true or false, also where they are written as text, as yes and no, or as 1 and 0."""
    written = item.text.strip().lower()
    if isinstance(item.value, bool):
        return item.value
    if written not in _FLAGS:
        raise fault(item, f"must be true or false, not {_shown(item)}")
    return _FLAGS[written]


def number(item: Item) -> float | int:
    """Returns a finite number, also from text: YAML 1.1 takes `1e-5`, which has no dot, for text."""
    value = item.value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise fault(item, f"must be a number, not {_shown(item)}")
    if not -MAX_NUMBER < value < MAX_NUMBER:
        raise fault(item, f"must be a finite number, not {item.text[:40]}")
    return value


def whole_number(item: Item) -> int:
    """Returns a number without a fraction."""
    value = number(item)
    if value != int(value):
        raise fault(item, f"must be a whole number, not {item.text}")
    return int(value)


def _shown(item: Item) -> str:
    return f"`{item.value[:40]}`" if isinstance(item.value, str) else item.kind
