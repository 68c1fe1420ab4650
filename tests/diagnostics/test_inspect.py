from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from hubmerge.cli import main
from hubmerge.diagnostics.inspect import Sample, inspect, sample_block
from hubmerge.merge.pipeline import open_merge
from tests.checkpoints import write_tensors
from tests.diagnostics.test_collect import both, linear

ROLES = ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")


def recipe_file(folder: Path, recipe: dict[str, Any]) -> str:
    path = folder / "recipe.yml"
    path.write_text(json.dumps(recipe))
    return str(path)


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["inspect", *words])


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe of two models with four matrices of 512 rows in each of six layers."""
    folder = tmp_path_factory.mktemp("wide")
    generator = torch.Generator().manual_seed(0)
    names = [f"model.layers.{layer}.{role}.weight" for layer in range(6) for role in ROLES]
    paths = [
        write_tensors(folder / model, {name: torch.randn(512, 64, generator=generator) for name in names})
        for model in ("a", "b")
    ]
    return linear(*paths, dtype="float32")


@pytest.mark.parametrize(
    ("sample", "share"), [(Sample(), 0.012), (Sample(share=0.1), 0.11), (Sample(tensors=6), 0.003)]
)
def test_only_a_fraction_is_read(wide: dict[str, Any], sample: Sample, share: float) -> None:
    sizes: list[int] = []
    with open_merge(wide) as merge:
        found = inspect(merge.plan, [c.files for c in merge.checkpoints], sample, on_read=sizes.append)
        assert 0 < sum(sizes) <= share * merge.plan.read_bytes
    assert sum(sizes) == found.sampled * 4 * 2


def test_few_tensors_are_spread_over_layers_and_roles(wide: dict[str, Any]) -> None:
    with open_merge(wide) as merge:
        files = [checkpoint.files for checkpoint in merge.checkpoints]
        found = inspect(merge.plan, files, Sample(tensors=6), on_read=lambda _: None)
        three = inspect(merge.plan, files, Sample(tensors=3), on_read=lambda _: None)
    assert sorted(cell.layer for cell in found.cells) == list(range(6))
    assert {cell.role for cell in found.cells} == {"q", "k", "up", "down"}
    assert sorted(cell.layer for cell in three.cells) == [0, 2, 4]


def test_a_sample_is_whole_rows_from_the_middle() -> None:
    block = sample_block((512, 64), 0.01)
    assert (block.start, block.stop, block.row_length) == (253 * 64, 259 * 64, 64)
    assert sample_block((32_000, 4096), 0.5).elements == 65_536
    assert sample_block((7,), 0.01).elements == 7


def test_models_that_do_not_belong_together(wide: dict[str, Any], tmp_path: Path) -> None:
    result = run(recipe_file(tmp_path, wide))
    assert result.exit_code == 0, result.output
    assert "a and b are not tuned from the same base: their weights have a cosine of" in " ".join(result.output.split())


def test_the_terminal_shows_every_panel(family: Mapping[str, Path], tmp_path: Path) -> None:
    result = run(recipe_file(tmp_path, both(dict(family))))
    assert result.exit_code == 0, result.output
    headings = ["Task vector of a", "Task vector of b", "a and b", "Sign conflict beyond chance"]
    assert [line for line in result.output.splitlines() if line in headings] == headings
    assert "• The task vectors are " in result.output
    assert "From " in result.output.splitlines()[-1]


def test_json_and_picture(family: Mapping[str, Path], tmp_path: Path) -> None:
    picture = tmp_path / "models.png"
    result = run(recipe_file(tmp_path, both(dict(family))), "--json", "--sample", "1", "--png", str(picture))
    content = json.loads(result.stdout)
    assert content["sampled_elements"] == content["merged_elements"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_nested_merges_are_taken_apart(family: Mapping[str, Path]) -> None:
    inner = linear(family["a"], family["b"])
    tree = linear(family["base"]) | {
        "models": [{"model": m, "parameters": {"weight": 1}} for m in (inner, str(family["base"]))]
    }
    with open_merge(tree) as merge:
        files = [checkpoint.files for checkpoint in merge.checkpoints]
        found = inspect(merge.plan, files, Sample(), on_read=lambda _: None)
    assert found.models == ("a", "b", "base")


def test_a_picture_where_nobody_may_write(family: Mapping[str, Path], tmp_path: Path) -> None:
    result = run(recipe_file(tmp_path, both(dict(family))), "--png", str(tmp_path / "none" / "x.png"))
    assert result.exit_code == 1
    assert f"cannot write {tmp_path / 'none' / 'x.png'}: No such file or directory" in result.output
