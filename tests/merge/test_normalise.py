from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.normalise import normalised_recipe
from hubmerge.merge.pipeline import plan_recipe
from tests.merge.recipes import sliced, whole

Llamas = tuple[Path, Path, Path]


def ties(first: Path, second: Path, base: Path) -> dict[str, Any]:
    density = [{"filter": "mlp", "value": [0.2, 0.8]}, {"value": 0.5}]
    tuned = (first, {"weight": [1, 0.5], "density": density})
    return whole("ties", tuned, (second, {"weight": 1}), base_model=base, parameters={"lambda": 0.9}, seed=7)


def stacked(first: Path, second: Path, base: Path) -> dict[str, Any]:
    return sliced("slerp", {first: (0, 2), second: (1, 3)}, {first: (1, 4), second: (0, 3)}, base_model=first) | {
        "parameters": {"t": [0, 1]},
        "out_dtype": "float16",
    }


def nested(first: Path, second: Path, base: Path) -> dict[str, Any]:
    inner = ties(first, second, base) | {"dtype": "bfloat16"}
    return whole("linear", (inner, {"weight": 1}), (base, {"weight": 2}), parameters={"normalize": False})


def own_base(first: Path, second: Path, base: Path) -> dict[str, Any]:
    recipe = sliced("slerp", {first: (0, 4), second: (0, 4)}, base_model=first)
    recipe["slices"][0] |= {"base_model": str(second), "parameters": {"t": 0.3}}
    return recipe


@pytest.mark.parametrize("recipe", [ties, stacked, nested, own_base])
def test_the_normalised_recipe_makes_the_same_merge(llamas: Llamas, recipe: Any) -> None:
    plan = plan_recipe(recipe(*llamas))
    again = plan_recipe(normalised_recipe(plan))
    assert fingerprint(again) == fingerprint(plan)
    assert normalised_recipe(again) == normalised_recipe(plan)


def test_every_default_is_stated(llamas: Llamas) -> None:
    recipe = whole("dare_ties", (llamas[0], {"weight": 0.5}), base_model=llamas[1])
    assert yaml.safe_load(normalised_recipe(plan_recipe(recipe))) == {
        "merge_method": "dare_ties",
        "base_model": str(llamas[1]),
        "models": [{"model": str(llamas[0]), "parameters": {"weight": 0.5}}],
        "parameters": {"density": 1.0, "lambda": 1.0, "normalize": False, "rescale": True, "int8_mask": False},
        "seed": 0,
    }
