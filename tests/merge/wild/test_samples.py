"""Every recipe of the folder of published ones, planned and merged over stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.merge.recipe import load_recipe
from tests.merge.recipe.test_wild import FOLDER, is_valid, rows
from tests.merge.wild.agreement import assert_agrees
from tests.merge.wild.stand_ins import StandIns

SAMPLES = [row["file"] for row in rows() if is_valid(row)]


@pytest.mark.skipif(not SAMPLES, reason="HUBMERGE_WILD_RECIPES names no folder with an INDEX.tsv")
@pytest.mark.parametrize("name", SAMPLES)
def test_a_published_recipe_gives_what_its_formulas_say(name: str, stand_ins: StandIns, tmp_path: Path) -> None:
    assert_agrees(load_recipe(FOLDER / name), stand_ins, tmp_path / "out")
