from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hubmerge.card.facts import FileFacts, ParentFacts
from hubmerge.card.markdown import checksums, code, count, escape, fenced, listed, literal, model, url

HOSTILE = [
    "<script>alert(1)</script>",
    "<!-- hubmerge:licence end -->",
    "a | b",
    "[x](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "**bold** _it_ ~~no~~ `code`",
    "line\n\n# heading\n---\nlicense: mit",
    "\\[x](y)",
    "&lt;b&gt;",
    "- item",
    "1. item",
    "# heading",
    "> quote",
    "<https://example.org>",
]


def rendered(markdown: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_shows_as_it_is(text: str):
    assert rendered(escape(text)) == f"<p>{html.escape(one_line(text)).replace('&#x27;', chr(39))}</p>\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_stays_in_its_table_cell(text: str):
    table = rendered(f"| a | b |\n|---|---|\n| {escape(text)} | x |\n")
    assert re.findall("<td>(.*)</td>", table) == [html.escape(one_line(text)).replace("&#x27;", "'"), "x"]


@given(st.text())
def test_escaped_text_is_one_paragraph_without_markup(text: str):
    assert not re.search(r"<(?!p>|/p>)", rendered(f"x {escape(text)}"))


def test_usual_names_are_left_readable():
    assert escape("mlabonne/dare_ties-7B-v0.1, weight 0.36") == "mlabonne/dare_ties-7B-v0.1, weight 0.36"


def test_direction_marks_and_controls_are_dropped():
    assert escape("a\u202eb\x00c\x1b[31m") == "abc\\[31m"


@pytest.mark.parametrize("text", ["a", "`", "a`b``c", "``", "<b>", "-->"])
def test_code_shows_as_it_is(text: str):
    assert rendered(code(text)) == f"<p><code>{html.escape(text)}</code></p>\n"


@pytest.mark.parametrize("text", ["a: 1", "```\nout\n```", "````", "~~~\n<!-- hubmerge:recipe end -->\n", "a: `b`"])
def test_a_fence_is_longer_than_any_inside(text: str):
    shown = re.fullmatch(
        r'<pre><code class="language-yaml">(.*)\n</code></pre>\n', rendered(fenced(text, "yaml")), re.S
    )
    assert shown is not None
    assert html.unescape(shown[1]) == text.strip("\n")


def test_a_web_address_is_a_link_and_other_text_is_not():
    assert url("https://arxiv.org/abs/2311.03099") == "<https://arxiv.org/abs/2311.03099>"
    assert url("javascript:alert(1)") == "javascript:alert(1)"
    assert "<https://a" not in url("https://a.b/> <script>")


def test_a_model_is_linked_at_its_commit():
    parent = ParentFacts(label="x", role="", repo_id="a/b", sha="0" * 40)
    assert model(parent) == f"[a/b](https://huggingface.co/a/b/tree/{'0' * 40})"


def test_a_hostile_id_cannot_leave_its_link():
    parent = ParentFacts(label="x", role="", repo_id='a/b)[x](javascript:alert(1)) "<b>', sha=None)
    targets = re.findall('href="([^"]*)"', rendered(model(parent)))
    assert len(targets) == 1
    assert targets[0].startswith("https://huggingface.co/a/b")


def test_a_local_folder_is_named_without_its_path():
    assert model(ParentFacts(label="/home/alice/mine", role="")) == "local folder mine"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (7_241_732_096, "7.24 billion"),
        (494_032_768, "494 million"),
        (1_100_000_000_000, "1.1 trillion"),
        (1_048_576, "1.05 million"),
        (999_999_999, "1 billion"),
        (999_999, "1 million"),
        (999_499, "999,499"),
        (0, "0"),
    ],
)
def test_counts_in_words(number: int, text: str):
    assert count(number) == text


def test_lists_in_words():
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b_", "c"])] == ["a", "a and b", "a, b\\_ and c"]


def test_a_literal_is_python():
    assert eval(literal('a"b\n```\n\\')) == 'a"b\n```\n\\'
    assert "\n" not in literal("a\nb")


def test_checksums_are_what_sha256sum_reads():
    files = (FileFacts(path="a.json", size_bytes=1, sha256="a" * 64), FileFacts(path="b.json", size_bytes=1))
    assert checksums(files) == f"{'a' * 64}  a.json"
