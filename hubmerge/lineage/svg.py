"""An ancestry as an SVG file: no background of its own, boxes that carry theirs, so light and dark pages both do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from hubmerge.lineage.appearance import Kind, Tone, kind_of, licence_title, made_by, tone_of
from hubmerge.lineage.draw import summary
from hubmerge.lineage.graph import Lineage, Node
from hubmerge.lineage.layout import Box, Drawing, Line, Size, layout

MARGIN = 16.0
LEGEND_HEIGHT = 64.0
LONGEST_TEXT = 44
"""Characters of one line in a box."""

LINE_COLOUR = "#7d8590"
"""Contrast with white and with #0d1117, GitHub's dark page, is above 3:1 (https://www.w3.org/TR/WCAG22/#non-text-contrast)."""

FONTS = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
WIDE, SMALL = 7.6, 6.1
"""Pixels of a character in bold 13 px and in 11 px text; above the mean of usual sans-serif fonts."""


@dataclass(frozen=True)
class Paint:
    """How a box of one kind looks."""

    fill: str
    stroke: str
    radius: int
    stroke_width: float = 1.5
    dashes: str = ""


PAINTS = {
    Kind.MERGE: Paint("#ede9fe", "#6d28d9", 18, 2.5),
    Kind.FINETUNE: Paint("#dbeafe", "#1d4ed8", 6),
    Kind.ADAPTER: Paint("#fef3c7", "#92400e", 6, dashes="7 3"),
    Kind.QUANTIZED: Paint("#cffafe", "#0e7490", 0, dashes="2 3"),
    Kind.ORIGINAL: Paint("#f3f4f6", "#4b5563", 0),
    Kind.UNSEEN: Paint("#ffffff", "#b91c1c", 0, dashes="4 4"),
}
TONES = {
    Tone.OPEN: "#166534",
    Tone.SHARED: "#155e75",
    Tone.RESTRICTED: "#6b21a8",
    Tone.NONCOMMERCIAL: "#9a3412",
    Tone.FORBIDDEN: "#b91c1c",
    Tone.UNKNOWN: "#4b5563",
}
INK, FAINT_INK, PILL_INK = "#111827", "#4b5563", "#ffffff"


def lineage_svg(lineage: Lineage) -> str:
    """Returns the file's text: oldest above, the model below, base models joined by dashed lines."""
    drawing = layout(lineage, lambda members: _size([lineage.nodes[node_id] for node_id in members]))
    legend = _legend(lineage)
    legend_width = max(end for _, end in legend) if legend else 0.0
    width = max(drawing.width, legend_width) + 2 * MARGIN
    height = drawing.height + LEGEND_HEIGHT + 2 * MARGIN
    title = lineage.nodes[lineage.root].title
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" font-family="{FONTS}">',
        f"<title>{escape(f'Ancestry of {title}: {summary(lineage)}')}</title>",
        f'<g transform="translate({(width - drawing.width) / 2:.1f} {MARGIN:.1f})">',
        *_drawn(drawing, lineage),
        "</g>",
        f'<g transform="translate({(width - legend_width) / 2:.1f} {drawing.height + 2 * MARGIN:.1f})">',
        *(text for text, _ in legend),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _drawn(drawing: Drawing, lineage: Lineage) -> Iterator[str]:
    for line in drawing.lines:
        yield _line(line)
    for box in drawing.boxes:
        nodes = [lineage.nodes[node_id] for node_id in box.members]
        yield from _model(box, nodes[0]) if len(nodes) == 1 else _list(box, nodes)


def _line(line: Line) -> str:
    (x, y), *rest = line.points
    path = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in rest:
        half = (y + to_y) / 2
        path.append(f"C{x:.1f} {half:.1f} {to_x:.1f} {half:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    dashes = ' stroke-dasharray="5 4"' if line.is_base else ""
    arrow = f"M{x - 4:.1f} {y - 7:.1f}L{x:.1f} {y:.1f}L{x + 4:.1f} {y - 7:.1f}"
    style = f'fill="none" stroke="{LINE_COLOUR}" stroke-width="1.5"'
    return f'<path d="{"".join(path)}" {style}{dashes}/><path d="{arrow}" {style}/>'


def _model(box: Box, node: Node) -> Iterator[str]:
    kind = kind_of(node)
    yield _linked(node)
    yield _rectangle(box, PAINTS[kind])
    owner, _, name = node.title.rpartition("/")
    yield _text(owner or "\u00a0", box.x, box.y - 18, size=10, colour=FAINT_INK)
    yield _text(_cut(name), box.x, box.y - 2, size=13, colour=INK, bold=True)
    made, licence = made_by(node), _cut(licence_title(node))
    shows_licence = kind is not Kind.UNSEEN
    whole = len(made) * SMALL + (_pill_width(licence) + 8 if shows_licence else 0)
    left = box.x - whole / 2
    yield _text(made, left + len(made) * SMALL / 2, box.y + 18, size=11, colour=PAINTS[kind].stroke)
    if shows_licence:
        yield from _pill(licence, TONES[tone_of(node)], left + len(made) * SMALL + 8, box.y + 14)
    if node.contamination:
        yield _text("⚠", box.x + box.size.width / 2 - 15, box.y - 14, size=13, colour=TONES[Tone.NONCOMMERCIAL])
    yield "</a>" if node.repo_id else "</g>"


def _list(box: Box, nodes: Sequence[Node]) -> Iterator[str]:
    """Yields a box with a line for each of several models that nothing else is known of."""
    yield "<g>"
    yield _rectangle(box, PAINTS[Kind.ORIGINAL])
    top = box.y - box.size.height / 2
    yield _text(f"{len(nodes)} models", box.x, top + 20, size=13, colour=INK, bold=True)
    for index, node in enumerate(nodes):
        y = top + 40 + index * 16
        left = box.x - box.size.width / 2 + 16
        yield f'<circle cx="{left:.1f}" cy="{y - 4:.1f}" r="4" fill="{TONES[tone_of(node)]}"/>'
        colour = FAINT_INK if kind_of(node) is Kind.UNSEEN else INK
        yield _text(_cut(node.title), left + 10, y, size=11, colour=colour, anchor="start")
    yield "</g>"


def _legend(lineage: Lineage) -> list[tuple[str, float]]:
    """Returns the parts of the legend with their right ends: kinds in one row, tones of licences below."""
    kinds = {kind_of(node) for node in lineage.nodes.values()}
    tones = {tone_of(node) for node in lineage.nodes.values() if kind_of(node) is not Kind.UNSEEN}
    parts, x = [], 0.0
    for kind in [kind for kind in Kind if kind in kinds]:
        width = len(kind.value) * SMALL + 24
        box = Box((), x + width / 2, 12.0, Size(width, 24))
        text = _text(kind.value, box.x, 16, size=11, colour=INK)
        parts.append((_rectangle(box, PAINTS[kind]) + text, x + width))
        x += width + 10
    x = 0.0
    for tone in [tone for tone in Tone if tone in tones]:
        width = _pill_width(tone.value)
        parts.append(("".join(_pill(tone.value, TONES[tone], x, 40)), x + width))
        x += width + 10
    return parts


def _size(nodes: Sequence[Node]) -> Size:
    if len(nodes) > 1:
        return Size(max(len(_cut(node.title)) for node in nodes) * SMALL + 44, 38 + 16 * len(nodes))
    (node,) = nodes
    name = _cut(node.title.rpartition("/")[2])
    third = len(made_by(node)) * SMALL + 8 + _pill_width(_cut(licence_title(node)))
    warning = 32 if node.contamination else 0
    return Size(max(len(name) * WIDE + warning, third, 110) + 28, 66)


def _rectangle(box: Box, paint: Paint) -> str:
    left, top = box.x - box.size.width / 2, box.y - box.size.height / 2
    dashes = f' stroke-dasharray="{paint.dashes}"' if paint.dashes else ""
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.size.width:.1f}" height="{box.size.height:.1f}" '
        f'rx="{paint.radius}" fill="{paint.fill}" stroke="{paint.stroke}" stroke-width="{paint.stroke_width}"{dashes}/>'
    )


def _pill(text: str, colour: str, left: float, middle: float) -> Iterator[str]:
    width = _pill_width(text)
    yield f'<rect x="{left:.1f}" y="{middle - 8:.1f}" width="{width:.1f}" height="16" rx="8" fill="{colour}"/>'
    yield _text(text, left + width / 2, middle + 4, size=10, colour=PILL_INK)


def _pill_width(text: str) -> float:
    return len(text) * SMALL * 0.95 + 14


def _text(text: str, x: float, y: float, *, size: int, colour: str, bold: bool = False, anchor: str = "middle") -> str:
    weight = ' font-weight="600"' if bold else ""
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}"{weight}>{escape(text)}</text>'


def _linked(node: Node) -> str:
    if node.repo_id is None:
        return "<g>"
    return f"<a href={quoteattr(f'https://huggingface.co/{node.repo_id}')}>"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
