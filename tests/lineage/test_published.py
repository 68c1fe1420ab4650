"""Recipes that cards show."""

from __future__ import annotations

from hubmerge.lineage.published import fenced_recipe

RECIPE = "merge_method: slerp\nmodels: []\n"


def test_the_end_of_another_block_is_not_the_start_of_one() -> None:
    card = f"```python\nmerge()\n```\n\n## Recipe\n\n```yaml\n{RECIPE}```\n"
    assert fenced_recipe(card) == RECIPE


def test_a_block_without_a_language_may_be_a_recipe() -> None:
    assert fenced_recipe(f"Made by:\n\n```\n{RECIPE}```\n") == RECIPE
    assert fenced_recipe("```\nnothing\n```\n") is None
