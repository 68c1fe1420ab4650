from __future__ import annotations

from dataclasses import replace

from hubmerge.card.facts import ParentFacts
from hubmerge.card.lineage import CLOSE, lineage_graph
from tests.card.facts import BASE, MONARCH, OMNI


def test_parents_point_to_the_merge_and_the_base_by_a_dotted_line():
    assert lineage_graph(replace(MONARCH, parents=(OMNI, BASE))).splitlines() == [
        "flowchart TD",
        f"  {CLOSE}",
        '  p0["mlabonne/OmniTruthyBeagle-7B-v0"]',
        '  p1["mistralai/Mistral-7B-v0.1"]',
        '  merge(["mlabonne/Monarch-7B"])',
        '  p0 -->|"weight 0.36, density 0.65"| merge',
        '  p1 -.->|"base model"| merge',
    ]


def test_labels_cannot_break_the_drawing():
    hostile = ParentFacts(label='x"]; click p0 "javascript:alert(1)"\n%%{init}%%', role='a"|b`#35;')
    lines = lineage_graph(replace(MONARCH, parents=(hostile,))).splitlines()
    assert len(lines) == 5
    assert lines[2] == '  p0["x#34;#93;#59; click p0 #34;javascript:alert#40;1#41;#34; #37;#37;#123;init#125;#37;#37;"]'
    assert lines[4] == '  p0 -->|"a#34;#124;b#96;#35;35#59;"| merge'


def test_a_parent_without_a_role_has_a_bare_arrow():
    assert "  p0 --> merge" in lineage_graph(replace(MONARCH, parents=(ParentFacts(label="a/b", role=""),)))


def test_long_names_are_cut():
    drawing = lineage_graph(replace(MONARCH, parents=(ParentFacts(label="m" * 90, role="r"),)))
    assert f'p0["{"m" * 59}…"]' in drawing


def test_a_local_folder_is_drawn_without_its_path():
    drawing = lineage_graph(replace(MONARCH, parents=(ParentFacts(label="/home/alice/mine", role="r"),)))
    assert 'p0["mine"]' in drawing
