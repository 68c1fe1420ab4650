from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from huggingface_hub import RepoCard
from markdown_it import MarkdownIt

from hubmerge.card.facts import (
    AncestryFacts,
    FileFacts,
    LicenceDecision,
    MergeFacts,
    Outcome,
    ParentFacts,
    ParentLicence,
)
from hubmerge.card.licence import join_licences, override_licence
from hubmerge.card.lineage import lineage_graph
from hubmerge.card.render import SECTIONS, read_card, render_card, render_licence_file, templates_folder
from hubmerge.errors import CardError
from hubmerge.weights.front_matter import split_card
from tests.card.examples import FOURTEEN_MERGED
from tests.card.facts import BASE, LICENCE, MONARCH, OMNI
from tests.checkpoints import write_llama

ROOT = Path(__file__).parents[2]
SHOWN = Path(__file__).with_name("monarch.md")
HOSTILE = "x`|\n---\nlicense: mit\n---\n<!-- hubmerge:notes end --><script>{{ 7 * 7 }}</script>\n# owned"


def hostile_facts() -> MergeFacts:
    parent = ParentFacts(
        **{field.name: HOSTILE for field in fields(ParentFacts) if field.name not in ("gated", "is_base")}
        | dict.fromkeys(("tags", "languages", "datasets"), (HOSTILE,))
    )
    licence = LicenceDecision(
        license="other",
        name=HOSTILE,
        link=HOSTILE,
        outcome=Outcome.OVERRIDDEN,
        reasons=(HOSTILE,),
        notices=(HOSTILE,),
        override_reason=HOSTILE,
    )
    file = FileFacts(path=HOSTILE, size_bytes=1, sha256=HOSTILE)
    texts = [field.name for field in fields(MergeFacts) if isinstance(getattr(MONARCH, field.name), str)]
    known = {name: HOSTILE for name in texts if name != "pipeline_tag"}
    return replace(MONARCH, **known, parents=(parent,), licence=licence, files=(file,), notes=(HOSTILE,))


def html_of(card: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(split_card(card)[1])


def test_the_whole_card_as_the_hub_gets_it():
    assert render_card(MONARCH) == SHOWN.read_text(encoding="utf-8")


def test_the_same_facts_give_the_same_text():
    assert render_card(MONARCH) == render_card(MONARCH)


def test_publishing_again_changes_nothing():
    card = render_card(MONARCH)
    assert render_card(MONARCH, previous=card) == card
    assert render_card(MONARCH, previous=card.replace("\n", "\r\n")) == card


def test_a_merge_without_a_tokenizer_says_so():
    card = render_card(replace(MONARCH, tokenizer_from=None, chat_template=False))
    assert (
        "## Tokenizer\n\nNo tokenizer came with the model that this merge takes its small files from. "
        "The context is 32,768 tokens long.\n"
    ) in card


def test_every_template_is_a_section():
    files = sorted(path.name for path in (templates_folder() / "sections").iterdir())
    assert files == sorted(f"{name}.md.jinja" for name in SECTIONS)


def test_text_of_a_person_stays_where_it_is():
    card = render_card(MONARCH)
    edited = card.replace("# Monarch-7B\n", "# Monarch\n\nMy best merge.\n").replace("## Usage", "## Old usage")
    edited += "\n## Samples\n\nIt rhymes.\n"
    renewed = render_card(replace(MONARCH, seed=43), previous=edited)
    assert "# Monarch\n\nMy best merge.\n" in renewed
    assert renewed.endswith("\n## Samples\n\nIt rhymes.\n")
    assert "- Random seed 43\n" in renewed
    assert "## Old usage" not in renewed


def test_a_card_of_another_hand_stays_whole_below_ours():
    previous = "---\nthumbnail: x.png\nlicense: mit\n---\n# My model\n\nHand-written.\n"
    card = render_card(MONARCH, previous=previous)
    assert card.endswith("## Earlier card\n\nThe text below was here before this card; it is as it was.\n\n"
                         "# My model\n\nHand-written.\n")  # fmt: skip
    assert "\nlicense: cc-by-nc-4.0\nthumbnail: x.png\n---\n" in card
    assert render_card(MONARCH, previous=card) == card


def test_front_matter_that_would_be_lost_is_an_error():
    with pytest.raises(CardError) as caught:
        render_card(MONARCH, previous="---\n- a\n---\n")
    assert str(caught.value) == (
        "the front matter of the target's README.md cannot be kept: it is not a mapping of keys to values"
    )


def test_hostile_values_stay_inside_their_place():
    card = render_card(hostile_facts())
    metadata = RepoCard(card).data.to_dict()
    assert sorted(metadata) == sorted(
        ["base_model_relation", "library_name", "pipeline_tag", "tags", "license", "license_name", "license_link"]
    )
    assert metadata["license"] == "other"
    assert "<script" not in html_of(card)
    assert "49" not in card
    assert re.findall("<h[1-6]>owned", html_of(card)) == []
    assert render_card(hostile_facts(), previous=card) == card


def test_sections_without_facts_are_left_out():
    bare = replace(MONARCH, notes=(), files=(), seed=None, context_length=None, pipeline_tag=None, architecture=None)
    card = render_card(bare)
    others = "Random seed|None|Checksums|context"
    assert not re.search(f"## Notes|## Usage|## Diagnostics|## Preference tuning|{others}", card)
    assert card.count("begin -->") == len(SECTIONS) - 5


def test_many_parents_are_counted_in_the_claim():
    card = render_card(replace(MONARCH, parents=(OMNI,) * 14))
    assert "\n**DARE-TIES merge** of 14 models.\n" in card


def test_many_parents_on_a_base_name_the_base():
    assert "\n**DARE-TIES merge** of 14 models on [mistralai/Mistral-7B-v0.1](" in render_card(FOURTEEN_MERGED)


def test_a_chart_of_many_parents_counts_what_it_leaves_out():
    lines = lineage_graph(FOURTEEN_MERGED).splitlines()
    assert (lines[0], lines[-1]) == ("flowchart LR", "  rest --> merge")
    assert '  rest["…+8 parents"]' in lines
    assert '  p0 -.->|"base model"| merge' in lines


def test_the_claim_of_a_merge_that_needs_care_says_so_first():
    ancestry = AncestryFacts(chart="flowchart TD", summary="3 ancestors", warnings=("a/b is gone.", "c/d is gone."))
    summary = render_card(replace(MONARCH, ancestry=ancestry)).partition("<!-- hubmerge:summary end -->")[0]
    assert "\n> **Before you use it:** its ancestry has 2 open points, listed under [Lineage](#lineage).\n" in summary


def test_torch_is_named_with_hubmerge():
    card = render_card(replace(MONARCH, torch_version="2.13.0"))
    assert "\n- Made by hubmerge 0.1.0 with torch 2.13.0\n- Plan `sha256:3f0b6d8e`\n- Random seed 42\n" in card


def test_a_local_parent_is_named_without_its_path_and_a_reader_is_told():
    card = render_card(replace(MONARCH, parents=(BASE, ParentFacts(label="/home/alice/mine", role="weight 1"))))
    assert "| local folder mine | – | weight 1 | none declared |" in card
    assert "Some parents are local folders: only someone who has them can run it." in card
    assert "alice" not in card


def test_an_override_is_printed():
    chosen = replace(LICENCE, outcome=Outcome.OVERRIDDEN, override_reason="the author agreed")
    assert "- The publisher chose this licence: the author agreed\n" in render_card(replace(MONARCH, licence=chosen))


def test_no_licence_is_said():
    undecided = LicenceDecision(license=None, outcome=Outcome.CONSENT, reasons=("a/b declares no licence.",))
    card = render_card(replace(MONARCH, licence=undecided))
    sentence = "No licence could be derived; before this merge is published a person has to choose one."
    assert f"{sentence}\n\n- a/b declares no licence.\n" in card


def test_a_forbidden_licence_is_said():
    forbidden = LicenceDecision(license=None, outcome=Outcome.FORBIDDEN, reasons=("a/b allows no derivatives.",))
    card = render_card(replace(MONARCH, licence=forbidden))
    assert "No licence: those of the models behind this merge do not allow to publish it.\n\n- a/b allows" in card


@pytest.mark.parametrize(
    ("link", "shown"), [("LICENSE.md", "[LICENSE.md](LICENSE.md)"), ("https://a.org/l", "<https://a.org/l>")]
)
def test_an_other_licence_is_named_with_its_text(link: str, shown: str):
    other = LicenceDecision(license="other", name="qwen", link=link, outcome=Outcome.DERIVED, reasons=("a/b says so.",))
    assert f"**qwen**: {shown}\n\n- a/b says so.\n" in render_card(replace(MONARCH, licence=other))


def test_a_licence_file_quotes_names_links_and_who_declares_them():
    parents = [
        ParentLicence(label="org/l", license="llama3.1", page="https://huggingface.co/org/l/tree/abc"),
        ParentLicence(label="org/a|b", license="gemma"),
    ]
    chosen = override_licence(join_licences(parents), license="other", reason="both hold")
    lines = render_licence_file(chosen, title="Llama-Gemma").splitlines()
    assert lines[:3] == ["<!-- hubmerge:licences -->", "# llama3.1-and-gemma", ""]
    assert lines[7:9] == [
        "| llama3.1 | <https://www.llama.com/llama3_1/license/> | [org/l](https://huggingface.co/org/l/tree/abc) |",
        "| gemma | <https://ai.google.dev/gemma/terms> | org/a\\|b |",
    ]
    assert "- The publisher chose this licence: both hold" in lines
    assert "> Built with Llama." in lines


def test_a_template_lays_out_a_new_card(tmp_path: Path):
    (tmp_path / "mine.jinja").write_text("Hello {{ merge.title }}\n{{ sections.licence }}bye\n")
    card = render_card(MONARCH, template=tmp_path / "mine.jinja")
    assert split_card(card)[1].startswith("\nHello Monarch-7B\n<!-- hubmerge:licence begin -->\n")
    assert card.endswith("<!-- hubmerge:licence end -->\nbye\n")


def test_a_section_beside_a_template_replaces_ours(tmp_path: Path):
    (tmp_path / "sections").mkdir()
    (tmp_path / "sections" / "notes.md.jinja").write_text("No notes.")
    (tmp_path / "card.md.jinja").write_text("{{ sections.notes }}{{ sections.lineage }}")
    card = render_card(MONARCH, template=tmp_path / "card.md.jinja")
    assert "\nNo notes.\n" in card
    assert "```mermaid" in card


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{ merge.titel }}", "'hubmerge.card.facts.MergeFacts object' has no attribute 'titel'"),
        ("{% if %}", "Expected an expression, got 'end of statement block'"),
        ("{{ merge.__class__.__mro__ }}", "access to attribute '__class__' of 'MergeFacts' object is unsafe."),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 5|code }}", "expected string or bytes-like object, got 'int'"),
    ],
)
def test_a_template_that_does_not_work_is_one_sentence(tmp_path: Path, text: str, problem: str):
    (tmp_path / "t.jinja").write_text(text)
    with pytest.raises(CardError) as caught:
        render_card(MONARCH, template=tmp_path / "t.jinja")
    assert str(caught.value) == f"the card template t.jinja does not work: {problem}"


def test_a_template_that_does_not_end(tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text('{% include "mine.jinja" %}')
    with pytest.raises(CardError) as caught:
        render_card(MONARCH, template=template)
    assert str(caught.value) == "the card template mine.jinja does not work: it includes itself without an end"
    template.write_text("{% for number in range(10**9) %}{{ number }}{% endfor %}")
    with pytest.raises(CardError, match=r"^the card template mine\.jinja does not work: Range too big"):
        render_card(MONARCH, template=template)


def test_a_card_that_is_not_utf_8_is_not_written_anew() -> None:
    with pytest.raises(CardError) as caught:
        read_card(b"# Caf\n\xe9\n")
    message = "README.md is not UTF-8 (line 2 has the byte 0xe9): its text would be lost"
    assert (str(caught.value), caught.value.hint) == (message, "Save it as UTF-8, and run the command again.")


def test_a_template_that_is_not_there(tmp_path: Path):
    with pytest.raises(CardError, match=re.escape("there is no card template nowhere.jinja")):
        render_card(MONARCH, template=tmp_path / "nowhere.jinja")


def test_the_templates_are_found_where_the_wheel_puts_them(tmp_path: Path):
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    shutil.copytree(ROOT / "hubmerge", tmp_path / "hubmerge", ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in wheel["force-include"].items():
        shutil.copytree(ROOT / source, tmp_path / target)
    program = "from hubmerge.card.render import templates_folder as t; print(t(), (t() / 'card.md.jinja').is_file())"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "hubmerge" / "templates"), "True"]


@pytest.mark.parametrize("chat_template", [True, False])
def test_the_usage_snippet_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], chat_template: bool):
    write_llama(tmp_path, seed=0)
    if chat_template:
        (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    card = render_card(replace(MONARCH, chat_template=chat_template))
    snippet = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]
    snippet = snippet.replace("mlabonne/Monarch-7B", str(tmp_path)).replace("=256", "=2")
    exec(compile(snippet, "card", "exec"), {})
    assert capsys.readouterr().out
