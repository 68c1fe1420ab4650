"""Recipes that the tests change one line of."""

from __future__ import annotations

import pytest

from hubmerge.errors import RecipeError
from hubmerge.merge.recipe import Recipe, load_recipe

SLERP = """\
merge_method: slerp
base_model: org/base
models:
  - model: org/base
  - model: org/other
parameters:
  t: 0.5
dtype: bfloat16
"""

TIES = """\
merge_method: ties
base_model: org/base
models:
  - model: org/base
  - model: org/one
    parameters:
      weight: 0.5
      density: 0.6
  - model: org/two
    parameters:
      weight: 0.3
parameters:
  normalize: true
"""

STACK = """\
merge_method: passthrough
slices:
  - sources:
      - model: org/one
        layer_range: [0, 24]
  - sources:
      - model: org/two
        layer_range: [8, 32]
"""


def changed(recipe: str, old: str, new: str) -> str:
    assert old in recipe
    return recipe.replace(old, new)


def refusal(recipe: str) -> str:
    """What is said about a recipe that cannot be read."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe)
    return str(caught.value)


def warnings(recipe: str) -> tuple[str, ...]:
    return load_recipe(recipe).warnings


def ties(parameters: str) -> Recipe:
    """A ties recipe with this line under its first model's parameters."""
    return load_recipe(changed(TIES, "density: 0.6", parameters))
