"""The pages about recipes say what the program does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.merge.plan import model_refs
from hubmerge.merge.recipe import load_recipe
from tests.merge.wild.stand_ins import StandIns

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_the_reference_is_what_its_generator_prints() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate_docs.py")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert (DOCS / "recipes.md").read_text() == printed


def test_the_example_of_a_tree_can_be_run(tmp_path: Path) -> None:
    example = re.findall(r"```yaml\n(.*?)```", (DOCS / "trees.md").read_text(), re.DOTALL)[0]
    recipe = load_recipe(example)
    assert [str(ref) for ref in model_refs(recipe)] == ["org/base", "org/one", "org/two", "org/three", "org/four"]
    assert recipe.warnings == ()
    replaced, _ = StandIns(tmp_path / "models").of(recipe)
    merge_to_folder(replaced, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
