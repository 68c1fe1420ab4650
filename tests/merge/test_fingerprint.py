from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from hubmerge.merge.fingerprint import fingerprint, shard_contents
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import plan_recipe
from tests.merge.recipes import sliced, whole

Llamas = tuple[Path, Path, Path]


def ties(llamas: Llamas, weight: Any = 0.5, **top: Any) -> dict[str, Any]:
    first, second, base = llamas
    return whole("ties", (first, {"weight": weight}), (second, {"weight": 0.5}), base_model=base, **top)


def identity(recipe: dict[str, Any], **options: Any) -> str:
    return fingerprint(plan_recipe(recipe, MergeOptions(**options)))


def test_equal_merges_have_equal_fingerprints_of_64_digits(llamas: Llamas) -> None:
    assert identity(ties(llamas)) == identity(ties(llamas))
    assert len(identity(ties(llamas))) == 64


def test_what_does_not_decide_bytes_does_not_count(llamas: Llamas) -> None:
    described = ties(llamas, name="called something", parameters={"int8_mask": False, "lambda": 1.0})
    assert identity(described) == identity(ties(llamas))


def test_a_gradient_of_one_value_is_that_value(llamas: Llamas) -> None:
    first, second, base = llamas
    gradient = whole("ties", (first, {"weight": [0.5, 0.5]}), (second, {"weight": 0.5}), base_model=base)
    assert identity(gradient) == identity(ties(llamas))


@pytest.mark.parametrize(
    "change",
    [{"weight": 0.51}, {"dtype": "float32"}, {"seed": 1}, {"parameters": {"density": 0.9}}],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_the_recipe_shows(llamas: Llamas, change: dict[str, Any]) -> None:
    assert identity(ties(llamas, **change)) != identity(ties(llamas))


def test_the_seed_and_the_layout_of_files_show(llamas: Llamas) -> None:
    identities = [
        identity(ties(llamas)),
        identity(ties(llamas), seed=7),
        identity(ties(llamas), shard_bytes=9_000),
        identity(ties(llamas), shard_bytes=5_000),
    ]
    assert len(set(identities)) == 4


def test_the_order_of_models_shows_and_so_does_the_order_of_layers(llamas: Llamas) -> None:
    first, second, base = llamas
    assert identity(ties(llamas)) != identity(ties((second, first, base)))
    forwards = sliced("passthrough", {first: (0, 2)}, {first: (2, 4)})
    assert identity(forwards) != identity(sliced("passthrough", {first: (2, 4)}, {first: (0, 2)}))


def test_a_parent_in_a_folder_that_was_written_again_shows(tmp_path: Path, llamas: Llamas) -> None:
    copy = shutil.copytree(llamas[0], tmp_path / "copy")
    before = identity(whole("passthrough", copy))
    os.utime(copy / "model.safetensors", (1, 1))
    assert identity(whole("passthrough", copy)) != before


def test_a_tree_of_many_levels_is_digested_quickly(llamas: Llamas) -> None:
    recipe = whole("linear", (llamas[0], {"weight": 1}), (llamas[1], {"weight": 2}))
    for weight in range(12):
        recipe = whole("linear", (recipe, {"weight": 1}), (llamas[2], {"weight": weight + 1}))
    assert len(identity(recipe)) == 64


def contents(recipe: dict[str, Any]) -> dict[str, str]:
    return shard_contents(plan_recipe(recipe, MergeOptions(shard_bytes=9_000)))


def test_each_output_file_has_contents_of_its_own(llamas: Llamas) -> None:
    found = contents(ties(llamas))
    assert len(set(found.values())) == len(found) > 1
    assert contents(ties(llamas)) == found


def test_a_setting_of_some_tensors_shows_in_the_files_that_hold_it(llamas: Llamas) -> None:
    before = contents(ties(llamas))
    after = contents(ties(llamas, weight=[{"filter": "layers.1.mlp", "value": 0.6}, {"value": 0.5}]))
    same = [name for name in before if before[name] == after[name]]
    assert 0 < len(same) < len(before)


def test_another_file_of_a_parent_shows(llamas: Llamas, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(llamas[0], tmp_path / "copy"))
    before = contents(ties((copy, *llamas[1:])))
    os.utime(copy / "model.safetensors", ns=(1, 1))
    assert not set(before.values()) & set(contents(ties((copy, *llamas[1:]))).values())
