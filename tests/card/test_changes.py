"""The section of a card that says what is different since the merge before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hubmerge.card.facts import ChangeFacts, ParentChange
from hubmerge.card.render import render_card
from tests.card.facts import MONARCH

OLD, NEW = "0" * 40, "1" * 40
SINCE = f"Since [`0000000`](https://huggingface.co/{MONARCH.repo_id}/commit/{OLD})"
PAGE = "https://huggingface.co/a/b/commit"


def section(changes: ChangeFacts) -> str:
    card = render_card(replace(MONARCH, changes=changes))
    return card.partition("<!-- hubmerge:changes begin -->")[2].partition("<!-- hubmerge:changes end -->")[0].strip()


@pytest.mark.parametrize(
    ("is_recipe_changed", "has_parents", "sentence"),
    [
        (False, True, " these parents are different:"),
        (True, True, " the recipe was edited, and these parents are different:"),
        (True, False, " the recipe was edited."),
        (False, False, " no parent is different."),
    ],
)
def test_the_sentence_names_what_there_is(*, is_recipe_changed: bool, has_parents: bool, sentence: str) -> None:
    change = ParentChange(repo_id="a/b", old_sha=OLD, new_sha=NEW, kinds=("weights",))
    parents = (change,) if has_parents else ()
    lines = section(ChangeFacts(previous_sha=OLD, is_recipe_changed=is_recipe_changed, parents=parents)).splitlines()
    assert lines[:3] == ["## What changed", "", SINCE + sentence]


def test_each_parent_has_its_commits_and_what_is_different() -> None:
    changes = (
        ParentChange(repo_id="a/b", old_sha=OLD, new_sha=NEW, kinds=("docs", "weights")),
        ParentChange(repo_id="a/b", old_sha=None, new_sha=NEW, kinds=("new in the recipe",)),
        ParentChange(repo_id="a/b", old_sha=OLD, new_sha=None, kinds=("gone",)),
    )
    text = section(ChangeFacts(previous_sha=OLD, is_recipe_changed=False, parents=changes))
    assert text.splitlines()[-3:] == [
        f"| a/b | [`0000000`]({PAGE}/{OLD}) | [`1111111`]({PAGE}/{NEW}) | docs, weights |",
        f"| a/b | – | [`1111111`]({PAGE}/{NEW}) | new in the recipe |",
        f"| a/b | [`0000000`]({PAGE}/{OLD}) | – | gone |",
    ]
