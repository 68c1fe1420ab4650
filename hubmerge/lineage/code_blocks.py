"""The code blocks of a Markdown page, found in one pass whatever is written there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})(.*)")


@dataclass(frozen=True)
class Part:
    """Whole lines of a page: what stands between the fences of a code block, or the text around it.

    Attributes:
        language: What the opening fence says, in lower case; None for text.
        text: The lines; of a code block without its indentation.
    """

    language: str | None
    text: str


def parts(body: str) -> Iterator[Part]:
    """Yields the parts of a page in order; a fence that is never closed is text, and so is all that follows it."""
    opening: re.Match[str] | None = None
    lines: list[str] = []
    for line in body.split("\n"):
        fence = _FENCE.fullmatch(line)
        if fence is None:
            lines.append(line)
        elif opening is None and "`" not in fence[3]:
            yield Part(None, "\n".join(lines))
            opening, lines = fence, []
        elif opening is not None and fence[2].startswith(opening[2]) and not fence[3].strip():
            yield _code(opening, lines)
            opening, lines = None, []
        else:
            lines.append(line)
    yield Part(None, "\n".join(lines if opening is None else [opening[0], *lines]))


def _code(opening: re.Match[str], lines: Sequence[str]) -> Part:
    return Part(opening[3].strip().lower(), "\n".join(line.removeprefix(opening[1]) for line in lines))
