"""The variables that a person's own template may use: those that the docs list, all of them and no others."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from hubmerge.card.facts import (
    AncestryFacts,
    ChangeFacts,
    DiagnosticsFacts,
    FileFacts,
    LicenceDecision,
    LicenceTerms,
    MergeFacts,
    ParentFacts,
)
from hubmerge.card.markdown import FILTERS
from hubmerge.card.render import SECTIONS, render_card
from hubmerge.weights.front_matter import split_card
from tests.card.facts import MONARCH

DOCS = (Path(__file__).parents[2] / "docs" / "card.md").read_text(encoding="utf-8")
LISTED = re.findall(r"^\| `([a-z_.0-9]+)` \|", DOCS, re.M)
FILTER_EXAMPLES = re.findall(r"^\* `(\w[\w.\[\]]*\|\w+(?:\(.*?\))?)`: ", DOCS, re.M)
TERMS = LicenceTerms(title="mit", link=None, models=(("a/b", None),))
DIAGNOSTICS = DiagnosticsFacts(sentences=("a is b.",), has_picture=True, basis="A sample.")
CHANGES = ChangeFacts(previous_sha="0" * 40, is_recipe_changed=False, parents=())
ANCESTRY = AncestryFacts(chart="flowchart TD", summary="3 ancestors", warnings=("a/b is gone.",))


@pytest.mark.parametrize(
    ("prefix", "record"),
    [
        ("merge", MergeFacts),
        ("parent", ParentFacts),
        ("merge.licence", LicenceDecision),
        ("merge.ancestry", AncestryFacts),
        ("merge.changes", ChangeFacts),
        ("merge.diagnostics", DiagnosticsFacts),
        ("file", FileFacts),
    ],
)
def test_every_variable_is_in_the_docs(prefix: str, record: type) -> None:
    listed = [name.removeprefix(f"{prefix}.") for name in LISTED if name.rpartition(".")[0] == prefix]
    assert sorted(listed) == sorted(field.name for field in fields(record))


def test_every_section_and_filter_is_in_the_docs() -> None:
    named = DOCS.partition("### `sections`")[2].partition("###")[0]
    assert tuple(re.findall(r"`(\w+)`", named)) == SECTIONS
    assert {re.split(r"[|(]", example)[1] for example in FILTER_EXAMPLES} == set(FILTERS)


def test_a_template_that_uses_every_variable_renders(tmp_path: Path) -> None:
    """The loops and the examples' own names are what the docs call a parent, a file, a text and a number."""
    uses = "\n".join(f"{{{{ {name} }}}}" for name in (*LISTED, *FILTER_EXAMPLES))
    names = "{% set text, number, names = 'https://a.b', 5, ['a', 'b'] %}"
    loops = "{% for parent in merge.parents %}{% for file in merge.files %}\n"
    parts = "".join(f"{{{{ sections.{name} }}}}\n" for name in SECTIONS)
    (tmp_path / "mine.jinja").write_text(f"{names}{loops}{uses}\n{{% endfor %}}{{% endfor %}}\n{parts}")
    licence = replace(MONARCH.licence, terms=(TERMS,))
    facts = replace(MONARCH, ancestry=ANCESTRY, changes=CHANGES, diagnostics=DIAGNOSTICS, licence=licence)
    card = render_card(facts, template=tmp_path / "mine.jinja")
    assert "weight 0.36, density 0.65" in card
    assert "<https://a.b>" in card


def test_the_template_in_the_docs_renders(tmp_path: Path) -> None:
    example = re.findall(r"```jinja\n(.*?)```", DOCS, re.DOTALL)[0]
    (tmp_path / "mine.jinja").write_text(example)
    body = split_card(render_card(MONARCH, template=tmp_path / "mine.jinja"))[1]
    assert "I merged this for poems. [mlabonne/OmniTruthyBeagle-7B-v0](" in body
    assert body.count("begin -->") == 4
