"""The drawings: on the terminal, as Mermaid, as SVG, and as data."""

from __future__ import annotations

import io
import itertools
import json
import re
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from hubmerge.lineage.audit import audit
from hubmerge.lineage.draw import audit_view, least_width, lineage_view, summary
from hubmerge.lineage.graph import Lineage, State
from hubmerge.lineage.layout import Box, Size, layout
from hubmerge.lineage.mermaid import lineage_chart
from hubmerge.lineage.record import render_lineage
from hubmerge.lineage.svg import FAINT_INK, INK, LINE_COLOUR, PAINTS, PILL_INK, TONES, lineage_svg
from tests.lineage.graphs import graph, node

SVG = "{http://www.w3.org/2000/svg}"


def shown(view: object) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    console.print(view)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_the_tree_spells_every_ancestor_out_once() -> None:
    lineage = graph("a < b c; b < d; d < e; c < d", node("e", "cc-by-nc-nd-4.0"), node("c", "mit"))
    assert shown(lineage_view(lineage)) == [
        "a  merge  apache-2.0",
        "├── b  fine-tune  apache-2.0",
        "│   └── d  fine-tune  apache-2.0",
        "│       └── e  no known parents  cc-by-nc-nd-4.0",
        "└── c  fine-tune  mit",
        "    └── d  ↑",
        "4 ancestors, 1 of them reached more than one way",
    ]


def test_the_tree_ends_in_circles() -> None:
    assert shown(lineage_view(graph("a < a b; b < a"))) == [
        "a  merge  apache-2.0",
        "├── a  ↑",
        "└── b  fine-tune  apache-2.0",
        "    └── a  ↑",
        "1 ancestor",
    ]


def test_the_tree_of_alphamonarch_marks_bases_gates_and_warnings(alpha: Lineage) -> None:
    lines = [line.lstrip("│├└─ ") for line in shown(lineage_view(alpha))]
    assert "mlabonne/NeuBeagle-7B  deleted or private" in lines
    assert "fblgit/UNA-TheBeagle-7b-v1 (base)  no known parents  cc-by-nc-nd-4.0" in lines
    assert "janai-hq/trinity-v1  no known parents · gated  apache-2.0" in lines
    assert "EmbeddedLLM/Mistral-7B-Merge-14-v0.1  merge · slerp  cc-by-nc-4.0  contaminated data" in lines
    assert lines.count("mlabonne/OmniBeagle-7B  ↑") == 1


def test_a_deep_tree_needs_room() -> None:
    assert least_width(graph("a/a < b/b; b/b < c/c")) == 2 * 4 + 24


def test_an_audit_marks_what_needs_consent_and_ends_with_the_licence() -> None:
    assert shown(audit_view(audit(graph("a < b", node("b", None))))) == [
        "! b declares no licence, so nobody can tell what its descendants may do.",
        "Licence that follows from all ancestors: none; a person must decide.",
    ]
    assert shown(audit_view(audit(graph("a < b")))) == [
        "Nothing is wrong that public pages could show.",
        "Licence that follows from all ancestors: apache-2.0.",
    ]


def test_the_chart_joins_bases_by_dotted_lines_and_shapes_kinds(alpha: Lineage) -> None:
    lines = lineage_chart(alpha).splitlines()
    assert lines[0] == "flowchart TD"
    assert lines[2:4] == [
        '  n0("mlabonne/AlphaMonarch-7B<br/>fine-tune · dpo · cc-by-nc-4.0")',
        '  n1("mlabonne/NeuralMonarch-7B<br/>fine-tune · dpo · cc-by-nc-4.0")',
    ]
    assert '  n2(["mlabonne/Monarch-7B<br/>merge · dare_ties · cc-by-nc-4.0"])' in lines
    assert '  n4>"mlabonne/NeuBeagle-7B<br/>deleted or private"]' in lines
    assert {"  n7 --> n3", "  n7 --> n5", "  n6 -.-> n2"} <= set(lines)
    assert sum(line.startswith("  class ") for line in lines) == 5


def test_models_that_differ_in_their_names_alone_are_one_box(alpha: Lineage) -> None:
    lines = lineage_chart(alpha).splitlines()
    boxes = [line for line in lines if "unnamed/" in line]
    assert len(boxes) == 1
    assert boxes[0].endswith('["unnamed/mistral-7b-model-01 and 13 more<br/>no known parents · apache-2.0"]')
    assert sum("-->" in line or "-.->" in line for line in lines) == len(alpha.edges) - 13


def test_a_deep_chart_counts_what_it_leaves_out(alpha: Lineage) -> None:
    lines = lineage_chart(alpha, most_nodes=8).splitlines()
    assert '  rest["…+27 ancestors"]' in lines
    assert "  rest --> n7" in lines


def test_hostile_names_do_not_break_the_chart() -> None:
    hostile = node('b"]; click n0', state=State.LOCAL)
    lines = lineage_chart(Lineage(hostile.id, {hostile.id: hostile}, ())).splitlines()
    assert lines[2] == '  n0>"b#34;#93;#59; click n0<br/>local folder"]'


def test_the_record_is_stable_json(alpha: Lineage) -> None:
    record = json.loads(render_lineage(alpha))
    assert (record["lineage_version"], record["root"], len(record["models"])) == (1, "mlabonne/AlphaMonarch-7B", 35)
    assert record["models"][4] == {
        "id": "mlabonne/NeuBeagle-7B",
        "repo_id": "mlabonne/NeuBeagle-7B",
        "sha": None,
        "state": "missing",
        "relation": None,
        "method": None,
        "license": None,
        "license_name": None,
        "datasets": [],
        "contamination": [],
        "problems": [
            "there is no model mlabonne/NeuBeagle-7B on the Hub, or it is private and no token was given",
        ],
    }
    assert record["made_from"][5] == {
        "child": "mlabonne/Monarch-7B",
        "parent": "mistralai/Mistral-7B-v0.1",
        "base": True,
        "evidence": ["recipe in README.md"],
    }
    assert record["shared"][0] == "mistralai/Mistral-7B-v0.1"


def test_the_svg_is_xml_that_names_every_model_and_has_no_background(alpha: Lineage) -> None:
    root = ET.fromstring(lineage_svg(alpha))
    texts = {element.text for element in root.iter(f"{SVG}text")}
    names = {node.title for node in alpha.nodes.values()} | {node.title.split("/")[-1] for node in alpha.nodes.values()}
    assert all(each.title in texts or each.title.split("/")[-1] in texts for each in alpha.nodes.values()), names
    assert root.find(f"{SVG}title").text == (
        "Ancestry of mlabonne/AlphaMonarch-7B: 34 ancestors, 4 of them reached more than one way"
    )
    width = root.attrib["width"]
    assert all(element.attrib["width"] != width for element in root.iter(f"{SVG}rect"))


def test_hostile_names_do_not_break_the_svg() -> None:
    hostile = node("</text><script>alert(1)</script>&", '"<x>')
    root = ET.fromstring(lineage_svg(Lineage(hostile.id, {hostile.id: hostile}, ())))
    assert not list(root.iter(f"{SVG}script"))


def boxes_of(lineage: Lineage) -> tuple[Box, ...]:
    return layout(lineage, lambda members: Size(100.0, 40.0 * len(members))).boxes


def overlap(one: Box, other: Box) -> bool:
    return (
        abs(one.x - other.x) < (one.size.width + other.size.width) / 2
        and abs(one.y - other.y) < (one.size.height + other.size.height) / 2
    )


def test_boxes_do_not_overlap_and_parents_are_above(alpha: Lineage) -> None:
    boxes = boxes_of(alpha)
    assert not any(overlap(one, other) for one, other in itertools.combinations(boxes, 2))
    y = {member: box.y for box in boxes for member in box.members}
    assert all(y[edge.parent] < y[edge.child] for edge in alpha.edges)
    assert min(box.x - box.size.width / 2 for box in boxes) >= 0


def test_no_line_passes_through_a_box(alpha: Lineage) -> None:
    drawing = layout(alpha, lambda members: Size(100.0, 40.0))
    for line in drawing.lines:
        for (x, top), (to_x, bottom) in itertools.pairwise(line.points):
            if x == to_x:
                crossed = [box for box in drawing.boxes if abs(box.x - x) < 50 and top < box.y < bottom]
                assert not crossed


def test_many_parents_without_parents_share_a_box(alpha: Lineage) -> None:
    assert max(len(box.members) for box in boxes_of(alpha)) == 14


def test_circles_can_be_drawn() -> None:
    assert len(boxes_of(graph("a < a b; b < a"))) == 2


def contrast(one: str, other: str) -> float:
    """Returns the contrast ratio of WCAG 2."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = (int(each, 16) / 255 for each in re.findall("..", colour[1:]))
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"])
def test_lines_show_on_light_and_dark_pages(page: str) -> None:
    assert contrast(LINE_COLOUR, page) >= 3


def test_text_can_be_read() -> None:
    for paint in PAINTS.values():
        assert min(contrast(ink, paint.fill) for ink in (INK, FAINT_INK, paint.stroke)) >= 4.5
    assert min(contrast(PILL_INK, tone) for tone in TONES.values()) >= 4.5


def test_a_single_model_is_an_ancestry_too() -> None:
    alone = Lineage("a", {"a": node("a")}, ())
    assert summary(alone) == "0 ancestors"
    ET.fromstring(lineage_svg(alone))
