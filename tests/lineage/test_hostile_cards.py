"""Cards are written by anybody: none of them may keep a reader busy for long, steer a terminal, or fill a page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hubmerge.lineage.audit import audit
from hubmerge.lineage.declared import MOST_PARENTS, RepoTexts, card_texts, declared
from hubmerge.lineage.forms import written
from hubmerge.lineage.graph import State
from hubmerge.lineage.names import LONGEST_TITLE, named_models
from hubmerge.lineage.prose import MOST_QUOTES, contamination_warnings, described_parents
from hubmerge.lineage.published import fenced_recipe
from hubmerge.lineage.record import render_audit
from tests.lineage.graphs import graph, node

MANY = 40_000
RISING_FENCES = "".join(f"{'`' * number}x\n" for number in range(500, 3, -1))
LONGEST_SECONDS = 5.0
"""What goes through a text once takes a fraction of it on any machine; what goes back again and again takes hours."""


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (contamination_warnings, "```x\n" * MANY),
        (contamination_warnings, RISING_FENCES),
        (contamination_warnings, "contaminated " + "[" * 5 * MANY),
        (contamination_warnings, "contaminated " + "![a](" * MANY),
        (contamination_warnings, "no " * MANY + "contaminated"),
        (described_parents, "dpo of [" * MANY),
        (fenced_recipe, "```yaml\n" * MANY),
        (fenced_recipe, (" " * 50 + "```yaml\nx\n") * 4000),
        (fenced_recipe, RISING_FENCES),
        (named_models, "models--" + "a--" * MANY + "!"),
        (named_models, "/models--a" * MANY),
    ],
)
def test_no_text_takes_long(read: Callable[[str], object], text: str) -> None:
    begin = time.process_time()
    read(text)
    assert time.process_time() - begin < LONGEST_SECONDS


def test_an_ancestry_of_many_unread_models_takes_no_time() -> None:
    lineage = graph("a/merge < " + " ".join(f"x/m{number}" for number in range(4000)))
    begin = time.process_time()
    render_audit(lineage, audit(lineage))
    assert lineage.path_to("x/m3999") == ("a/merge", "x/m3999")
    assert time.process_time() - begin < LONGEST_SECONDS


def test_more_parents_than_any_merge_has_are_a_problem() -> None:
    names = [f"a/m{number}" for number in range(MOST_PARENTS + 1)]
    said = declared(RepoTexts(repo_id="x/y", sha=None, metadata={"base_model": names}))
    assert len(said.parents) == MOST_PARENTS
    assert said.problems == ("it names 501 models as its parents, and only the first 500 were looked at",)


def test_a_card_that_speaks_of_nothing_else_is_quoted_a_few_times() -> None:
    body = "".join(f"Contaminated by benchmark {number}.\n" for number in range(50))
    assert contamination_warnings(body)[-1] == "Contaminated by benchmark 2."
    assert len(contamination_warnings(body)) == MOST_QUOTES


STEERING = "\x1b]0;owned\x07\u202e\ud800"


@pytest.mark.parametrize(
    "files",
    [
        {"recipe": 'merge_method: "\\e[31mties"\nmodels:\n  - model: "a/b@\\e[2J"\n  - model: "\\e]0;/home/me/x"\n'},
        {"adapter": json.dumps({"base_model_name_or_path": f"c/d{STEERING}"})},
        {"tags": (f"base_model:merge:a/b{STEERING}",)},
    ],
)
def test_nothing_that_a_repo_says_steers_a_terminal(files: dict[str, Any]) -> None:
    card = card_texts("x/y", None, f"---\ntags: [merge]\n---\nThis is contaminated{STEERING[:-1]}.".encode())
    said = declared(replace(card, **files))
    assert said.parents
    assert f"{said.method}{said.contamination}{[parent.model for parent in said.parents]}".isprintable()


def test_an_adapter_config_may_hold_anything() -> None:
    for value in ('{"base_model_name_or_path": {"a": 1}}', "[" * 100_000, "null", '{"base_model_name_or_path": ""}'):
        assert declared(RepoTexts(repo_id="x/y", sha=None, adapter=value)).parents == ()


def test_a_name_is_no_longer_than_a_folders() -> None:
    assert len(named_models("x y" * 1000)[0].title) == LONGEST_TITLE
    assert named_models("//")[0].title == "/"


def test_every_form_of_an_odd_ancestry_is_utf_8() -> None:
    odd = [node("模型"), node('x"];click'), node("<script>|{{7*7}}`", state=State.LOCAL)]
    lineage = graph("a/merge < " + " ".join(each.id for each in odd), *odd)
    for form in ("json", "mermaid", "svg"):
        assert written(lineage, form).encode()
