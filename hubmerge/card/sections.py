"""The sections of a card that are ours: fenced with HTML comments, so that the rest stays as people wrote it.

    <!-- hubmerge:parents begin -->
    ...
    <!-- hubmerge:parents end -->

A card may have them anywhere and in any order, with any text between.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

_MARKER = re.compile(r"<!-- hubmerge:([a-z][a-z-]*) (begin|end) -->[ \t]*")
_CODE_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_HEADING = re.compile(r" {0,3}(#{1,6})\s")
_NO_MARKER = ("", "")


@dataclass(frozen=True)
class Piece:
    """Whole lines of a card's body: one of our sections, markers included, or what stands between (name None)."""

    name: str | None
    text: str


def fence_section(name: str, markdown: str) -> str:
    """Returns a section between its markers, ending with a line feed."""
    return f"<!-- hubmerge:{name} begin -->\n\n{markdown.strip()}\n\n<!-- hubmerge:{name} end -->\n"


def split_sections(body: str) -> list[Piece]:
    """Returns the pieces of a body in order; joined, their texts are the body.

    A begin marker without its end is text like any other: nobody can say where such a section stops.
    """
    lines = _lines(body)
    pieces: list[Piece] = []
    start = at = 0
    while at < len(lines):
        section = _section_at(lines, at)
        if section is None:
            at += 1
            continue
        name, stop = section
        pieces += [Piece(None, "".join(lines[start:at])), Piece(name, "".join(lines[at:stop]))]
        start = at = stop
    pieces.append(Piece(None, "".join(lines[start:])))
    return [piece for piece in pieces if piece.text]


def replace_sections(body: str, sections: Mapping[str, str]) -> str | None:
    """Returns a body with its sections brought up to date; None if it has none of them.

    Args:
        body: A card's body.
        sections: Every section that we know, by name, in order; "" for one that the card shall not have. One that the
            body lacks goes behind the section that comes before it here. Sections of other names stay as they are.
            A marker without its other half goes; the text around it stays.
    """
    pieces = split_sections(body)
    present = {piece.name for piece in pieces if piece.name in sections}
    if not present:
        return None
    groups = _grouped(sections, present)
    return "".join(
        groups.pop(piece.name, "") if piece.name in present else _without_strays(piece, sections) for piece in pieces
    )


def split_opening(body: str) -> tuple[str, str]:
    """Returns a body up to its first heading below the title, and the rest; what a code block shows is no heading."""
    lines = _lines(body)
    fence, is_titled = "", False
    for at, line in enumerate(lines):
        code = _CODE_FENCE.match(line.rstrip("\n"))
        if code:
            fence = "" if fence and code[1].startswith(fence) else fence or code[1]
        elif not fence and (heading := _HEADING.match(line)):
            if is_titled or heading[1] != "#":
                return "".join(lines[:at]), "".join(lines[at:])
            is_titled = True
    return body, ""


def _without_strays(piece: Piece, names: Container[str]) -> str:
    """Returns a piece that stays, less the markers of ours in people's text that have lost their other half.

    Left in place, two of them could meet once what stood between is gone, and claim the text around.
    """
    if piece.name is not None:
        return piece.text
    return "".join(line for line in _lines(piece.text) if _marker(line)[0] not in names)


def _grouped(sections: Mapping[str, str], present: AbstractSet[str | None]) -> dict[str | None, str]:
    """Returns what to write in place of each present section: its new text, and the new sections that follow it.

    New sections that come before all of the present ones are written with the first.
    """
    first = next(name for name in sections if name in present)
    groups: dict[str | None, list[str]] = {}
    anchor = first
    for name, text in sections.items():
        anchor = name if name in present else anchor
        groups.setdefault(anchor, []).append(text)
    return {name: "\n".join(filter(None, texts)) for name, texts in groups.items()}


def _section_at(lines: list[str], start: int) -> tuple[str, int] | None:
    """Returns the name of the section that begins at this line, and the line behind it; None if none does.

    It must end before another one begins. Markers that a code block shows are not markers.
    """
    name, kind = _marker(lines[start])
    if kind != "begin":
        return None
    fence = ""
    for at in range(start + 1, len(lines)):
        code = _CODE_FENCE.match(lines[at].rstrip("\n"))
        if code and not fence:
            fence = code[1]
        elif code and code[1].startswith(fence) and not code[2].strip():
            fence = ""
        elif not fence and _marker(lines[at]) != _NO_MARKER:
            return (name, at + 1) if _marker(lines[at]) == (name, "end") else None
    return None


def _lines(text: str) -> list[str]:
    """Returns the lines of a text with their line feeds: of these only, not of whatever else may part lines."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _marker(line: str) -> tuple[str, str]:
    """Returns the name and the kind, "begin" or "end", of a line that is a marker."""
    match = _MARKER.fullmatch(line.rstrip("\n"))
    return (match[1], match[2]) if match else _NO_MARKER
