"""Merges with a recipe and no lock file, as mergekit publishes them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from hubmerge.card.lock import LOCK_FILE
from hubmerge.merge.pipeline import merge_to_folder, plan_recipe
from hubmerge.verify.compare import Differences
from hubmerge.verify.foreign import Rounding, rounding_of
from hubmerge.verify.report import Outcome, Report, Verdict
from tests.merge.recipes import whole
from tests.verify.merges import K_PROJ, OPTIONS, Siblings, check, copied, differing, flip_bit, full_report


def foreign(recipe: dict[str, Any], folder: Path) -> Path:
    """Returns a merge in which nothing says at which commits its parents were."""
    merge_to_folder(recipe, folder, options=OPTIONS)
    (folder / LOCK_FILE).unlink()
    (folder / "README.md").write_text("")
    return folder


def elements(report: Report) -> int:
    """Returns how many elements of a merge in bfloat16 were looked at."""
    assert report.sample is not None
    return report.sample.result_bytes // 2


def linear(siblings: Siblings) -> dict[str, Any]:
    models = [{"model": repo, "parameters": {"weight": 0.5}} for repo in siblings.repos]
    return {"merge_method": "linear", "models": models, "dtype": "bfloat16"}


@pytest.fixture(scope="module")
def merged(siblings: Siblings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign(linear(siblings), tmp_path_factory.mktemp("foreign") / "merge")


def test_it_is_proven_within_rounding_and_says_what_that_rests_on(merged: Path) -> None:
    report = full_report(merged)
    assert (report.verdict, report.made_by, report.tolerance_ulps) == (Verdict.PROVEN, "another tool", 2)
    assert len(report.assumptions) == 3
    assert report.assumptions[0].startswith("local/sibling-0 was merged as it is now, at ")
    assert report.assumptions[0].endswith(": no lock file says at which commit.")
    assert check(report, "small files").outcome is Outcome.NOT_NEEDED


def test_a_last_bit_is_rounding_and_a_higher_one_is_not(merged: Path, tmp_path: Path) -> None:
    rounded = copied(merged, tmp_path / "rounded")
    flip_bit(rounded, K_PROJ, bit=0)
    assert full_report(rounded).verdict is Verdict.PROVEN
    changed = copied(merged, tmp_path / "changed")
    flip_bit(changed, K_PROJ, bit=14)
    assert differing(full_report(changed)) == ["weights"]


def test_the_files_may_be_divided_in_another_way(siblings: Siblings, merged: Path, tmp_path: Path) -> None:
    merge_to_folder(linear(siblings), tmp_path / "merge")
    (tmp_path / "merge" / LOCK_FILE).unlink()
    assert full_report(tmp_path / "merge").verdict is Verdict.PROVEN


def test_a_tensor_that_two_files_have_differs(siblings: Siblings, merged: Path, tmp_path: Path) -> None:
    folder = copied(merged, tmp_path / "merge")
    shutil.copy(siblings.folders[0] / "model.safetensors", folder)
    assert check(full_report(folder), "tensors").detail.endswith(" more in several files")


def test_masks_that_nobody_recorded_cannot_be_checked(siblings: Siblings, tmp_path: Path) -> None:
    report: Report = full_report(foreign(siblings.dare_ties(), tmp_path / "merge"))
    assert report.verdict is Verdict.UNCHECKED
    assert check(report, "tensors").outcome is Outcome.AGREES
    assert check(report, "weights").detail == (
        "mergekit does not record the random masks of dare_ties, so nobody can draw them again"
    )


def test_near_ties_are_passed_over_and_counted(siblings: Siblings, tmp_path: Path) -> None:
    recipe = siblings.dare_ties() | {"merge_method": "ties"}
    folder = foreign(recipe, tmp_path / "merge")
    flip_bit(folder, K_PROJ, bit=14)
    report = full_report(folder)
    assert report.verdict is Verdict.PROVEN
    assert report.assumptions[-1] == (
        f"1 of {elements(report):,} elements are further off than 2 ulp because near ties fell to the other side."
    )
    for element in range(10, 20):
        flip_bit(folder, K_PROJ, element=element, bit=14)
    (difference,) = full_report(folder).differences
    assert (difference.name, difference.elements) == (K_PROJ, 11)


def test_a_method_whose_rounding_is_unknown_cannot_be_checked(siblings: Siblings) -> None:
    first, second, _ = siblings.folders
    assert rounding_of(plan_recipe(whole("nearswap", first, second, base_model=first, parameters={"t": 0.1}))) == (
        "mergekit's rounding of nearswap is not known well enough to tell it from a change"
    )


def test_every_merge_of_a_tree_rounds(siblings: Siblings) -> None:
    first, second, _ = siblings.folders
    inner = whole("slerp", first, second, base_model=first, parameters={"t": 0.5})
    tree = whole("linear", (inner, {"weight": 1}), (second, {"weight": 1}))
    assert rounding_of(plan_recipe(tree)) == Rounding(4)


def test_decisions_that_fell_the_other_way_are_few() -> None:
    found = Differences("F32")
    found.looked_at, found.beyond = 100, 5
    assert Rounding(2, share=0.05).explains(found)
    assert not Rounding(2, share=0.04).explains(found)
