"""Recipes as people publish them; the folder with them is not part of the repo."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest

from hubmerge.errors import RecipeError
from hubmerge.merge.recipe import load_recipe

BESIDE_REPO = Path(__file__).parents[4] / "shared" / "wild-recipes"
FOLDER = Path(os.environ.get("HUBMERGE_WILD_RECIPES", BESIDE_REPO))

REFUSED_ON_PURPOSE = {
    "leliuga-neural-chat-7b-v3-3-wizardmath-dare-me-fence1.yaml": "merge_method (line 15): the key is on line 8 already"
}
"""What mergekit takes, keeping the last of two equal keys."""


def rows() -> list[dict[str, str]]:
    index = FOLDER / "INDEX.tsv"
    if not index.is_file():
        return []
    with index.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def is_mixture(row: dict[str, str]) -> bool:
    """Whether it is for mergekit-moe, which hubmerge reads as well."""
    return row["kind"] == "mergekit-moe-like"


def is_valid(row: dict[str, str]) -> bool:
    known = not row["kind"].startswith(("unknown-method", "mergekit-evolve", "template"))
    return known and row["mergekit_schema"] == "accept" and row["file"] not in REFUSED_ON_PURPOSE


@pytest.mark.skipif(not rows(), reason="HUBMERGE_WILD_RECIPES names no folder with an INDEX.tsv")
def test_there_are_recipes_of_both_kinds() -> None:
    assert sum(map(is_valid, rows())) > 50
    assert sum(not is_valid(row) for row in rows()) > 15


@pytest.mark.parametrize("name", [row["file"] for row in rows() if is_valid(row)])
def test_a_valid_recipe_loads(name: str) -> None:
    assert load_recipe(FOLDER / name).slices


@pytest.mark.parametrize("name", [row["file"] for row in rows() if is_mixture(row)])
def test_a_mixture_loads(name: str) -> None:
    assert load_recipe(FOLDER / name).mixture


@pytest.mark.parametrize("name", [row["file"] for row in rows() if not is_valid(row) and not is_mixture(row)])
def test_a_broken_or_foreign_recipe_is_refused_in_one_sentence_with_its_line(name: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(FOLDER / name)
    message = str(caught.value)
    assert re.match(r"(line \d+|[\w.\[\]]+ \(line \d+\)): .", message)
    assert "\n" not in message
    assert message == REFUSED_ON_PURPOSE.get(name, message)
