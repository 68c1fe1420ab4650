"""An ancestry as a Mermaid flowchart, which the Hub and GitHub draw in a card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hubmerge.card.lineage import CLOSE, mermaid_label
from hubmerge.lineage.appearance import Kind, Tone, kind_of, licence_title, made_by, tone_of
from hubmerge.lineage.fold import folded
from hubmerge.lineage.graph import Lineage, Node

MOST_NODES = 40
"""Beyond that a drawing in a card is too small to read."""

_SHAPES = {
    Kind.MERGE: ("([", "])"),
    Kind.FINETUNE: ("(", ")"),
    Kind.ADAPTER: ("[/", "/]"),
    Kind.QUANTIZED: ("{{", "}}"),
    Kind.ORIGINAL: ("[", "]"),
    Kind.UNSEEN: (">", "]"),
}
_STROKES = {
    Tone.OPEN: "#15803d",
    Tone.SHARED: "#0e7490",
    Tone.RESTRICTED: "#7e22ce",
    Tone.NONCOMMERCIAL: "#b45309",
    Tone.FORBIDDEN: "#b91c1c",
    Tone.UNKNOWN: "#6b7280",
}


def lineage_chart(lineage: Lineage, *, most_nodes: int = MOST_NODES) -> str:
    """Returns the flowchart: oldest above, the model below, base models joined by dotted lines, like models folded.

    Of a larger ancestry the nearest `most_nodes` models are drawn, with what is left counted in one box.
    """
    lineage, sizes = folded(lineage)
    shown = {node_id: f"n{index}" for index, node_id in enumerate(list(lineage.nodes)[:most_nodes])}
    lines = ["flowchart TD", f"  {CLOSE}"]
    lines += [f"  {name}{_box(lineage.nodes[node_id])}" for node_id, name in shown.items()]
    lines += [f"  {line}" for line in _arrows(lineage, shown)]
    lines += [f"  {line}" for line in _rest(lineage, shown, sizes)]
    lines += [f"  {line}" for line in _styles(lineage, shown)]
    return "\n".join(lines)


def _box(node: Node) -> str:
    kind = kind_of(node)
    opening, closing = _SHAPES[kind]
    second = made_by(node) if kind is Kind.UNSEEN else f"{made_by(node)} · {licence_title(node)}"
    return f'{opening}"{mermaid_label(node.title)}<br/>{mermaid_label(second)}"{closing}'


def _arrows(lineage: Lineage, shown: dict[str, str]) -> Iterator[str]:
    for edge in lineage.edges:
        if edge.child in shown and edge.parent in shown:
            arrow = "-.->" if edge.is_base else "-->"
            yield f"{shown[edge.parent]} {arrow} {shown[edge.child]}"


def _rest(lineage: Lineage, shown: dict[str, str], sizes: Mapping[str, int]) -> Iterator[str]:
    number = sum(sizes.get(node_id, 1) for node_id in lineage.nodes if node_id not in shown)
    if number:
        yield f'rest["…+{number} ancestor{"s" * (number > 1)}"]'
        for child in dict.fromkeys(edge.child for edge in lineage.edges if edge.parent not in shown):
            if child in shown:
                yield f"rest --> {shown[child]}"


def _styles(lineage: Lineage, shown: dict[str, str]) -> Iterator[str]:
    """Yields a class for each tone, and the models that have it; strokes alone, so that any theme shows the text."""
    for tone, stroke in _STROKES.items():
        if members := _members(lineage, shown, tone):
            yield f"classDef {tone.name.lower()} stroke:{stroke},stroke-width:2px"
            yield f"class {','.join(members)} {tone.name.lower()}"
    unseen = [name for node_id, name in shown.items() if kind_of(lineage.nodes[node_id]) is Kind.UNSEEN]
    if unseen:
        yield "classDef unseen stroke-dasharray:4 4"
        yield f"class {','.join(unseen)} unseen"


def _members(lineage: Lineage, shown: dict[str, str], tone: Tone) -> list[str]:
    return [name for node_id, name in shown.items() if tone_of(lineage.nodes[node_id]) is tone]
