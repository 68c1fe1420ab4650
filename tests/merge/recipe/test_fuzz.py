"""Whatever comes in, a recipe or one RecipeError comes out."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hubmerge.errors import RecipeError
from hubmerge.merge.methods import METHODS
from hubmerge.merge.recipe import Recipe, keys, load_recipe
from tests.merge.recipe.recipes import SLERP, STACK, TIES

KEYS = (
    *keys.RECIPE_KEYS,
    *keys.SLICE_KEYS,
    *keys.SLICE_SOURCE_KEYS,
    *keys.TOKENIZER_KEYS,
    *keys.TOKEN_KEYS,
    *keys.CASE_KEYS,
    *("t", "weight", "density", "normalize", "kind", "path", "revision", "lora", "<<"),
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([*METHODS, "a/b", "union", "1e-5", "bfloat16", "org/x@y+z/w", "10" * 3000]),
)
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)
LINES = [line for recipe in (SLERP, TIES, STACK) for line in recipe.splitlines()]


def reads_or_refuses(source: Any) -> None:
    with contextlib.suppress(RecipeError):
        assert isinstance(load_recipe(source, lenient=True), Recipe)


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_any_text(text: str) -> None:
    reads_or_refuses(text)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(LINES) | st.text(alphabet=" -:[]{},&*a!<?|>'\"#1e.\t%@`", max_size=12), max_size=12))
def test_lines_of_recipes_and_of_yaml_signs_in_any_order(lines: list[str]) -> None:
    reads_or_refuses("\n".join(lines) + "\n")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(METHODS)), st.dictionaries(st.sampled_from(KEYS), TREES, max_size=6))
def test_any_data_under_the_keys_of_the_language(method: str, content: dict[str, Any]) -> None:
    reads_or_refuses({"merge_method": method, **content})


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([SLERP, TIES, STACK]), st.data())
def test_a_recipe_with_one_part_replaced(recipe: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(recipe)))
    stop = data.draw(st.integers(start, min(start + 20, len(recipe))))
    reads_or_refuses(recipe[:start] + data.draw(st.text(max_size=6)) + recipe[stop:])
