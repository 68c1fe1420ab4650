"""What a staging is for, in a file beside what is staged: read when another merge finds it there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

NOTE_FILE = "plan.json"

LARGEST_NOTE_BYTES = 4 << 20
"""A tree of fifty models has a tenth of it."""

DEEPEST = 60
"""Levels of a note that are looked at; a recipe within a recipe takes four."""

DIFFERENCES_SHOWN = 6

ABSENT = "nothing"


@dataclass(frozen=True)
class PlanNote:
    """What decides a merge's bytes, as plain data.

    Attributes:
        content: Version, parents, recipe and output files; of a note that was read, whatever somebody wrote.
    """

    content: Mapping[str, Any]

    def render(self) -> bytes:
        """Returns the file's content."""
        return (json.dumps(self.content, indent=2, ensure_ascii=False) + "\n").encode()

    @property
    def models(self) -> str:
        """What is merged and how, in a few words."""
        recipe, parents = self.content.get("recipe"), self.content.get("parents")
        method = recipe.get("merge_method", "a merge") if isinstance(recipe, dict) else "a merge"
        names = list(parents) if isinstance(parents, dict) else []
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{_short(method)} of {', '.join(map(_short, names[:3]))}{more}" if names else _short(method)

    def differences(self, now: PlanNote) -> list[str]:
        """Returns what is otherwise in another plan: `recipe.dtype: was float16, is bfloat16`."""
        before, after = dict(_leaves(self.content, "")), dict(_leaves(now.content, ""))
        changed = [path for path in {**before, **after} if before.get(path, ABSENT) != after.get(path, ABSENT)]
        shown = [
            f"{path}: was {_short(before.get(path, ABSENT))}, is {_short(after.get(path, ABSENT))}"
            for path in changed[:DIFFERENCES_SHOWN]
        ]
        more = len(changed) - len(shown)
        return [*shown, f"and {more} more"] if more else shown


def parse_note(content: bytes) -> PlanNote | None:
    """Returns a note that anybody may have written; None if it is none."""
    if len(content) > LARGEST_NOTE_BYTES:
        return None
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return PlanNote(parsed) if isinstance(parsed, dict) else None


def _leaves(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    if depth < DEEPEST and isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key, depth + 1)
    elif depth < DEEPEST and isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{number}]", depth + 1)
    else:
        yield path, str(value) if depth < DEEPEST else "..."


def _short(value: Any) -> str:
    text = " ".join(islice(str(value).split(), 20))
    return text if len(text) <= 80 else f"{text[:77]}..."
