from __future__ import annotations

from hubmerge.merge.recipe import Recipe, load_recipe
from hubmerge.weights.reference import ModelRef
from tests.merge.recipe.recipes import refusal


def linear(name: str | None, *models: str) -> str:
    """A document that merges these models."""
    listed = "".join(f"  - model: {model}\n" for model in models)
    title = "" if name is None else f"name: {name}\n"
    return f"---\n{title}merge_method: linear\nparameters: {{weight: 1}}\nmodels:\n{listed}"


def inputs(recipe: object) -> list[object]:
    assert isinstance(recipe, Recipe)
    return [source.model for source in recipe.slices[0].sources]


def test_a_document_stands_where_its_name_does() -> None:
    root = load_recipe(linear("first", "a/x", "a/y") + linear(None, "first", "a/z"))
    first, z = inputs(root)
    assert inputs(first) == [ModelRef("a/x"), ModelRef("a/y")]
    assert z == ModelRef("a/z")
    assert root.name is None


def test_the_order_of_documents_is_free_if_they_lead_to_one() -> None:
    root = load_recipe(linear("last", "first", "a/z") + linear("first", "a/x"))
    assert root.name == "last"


def test_a_document_that_several_need_is_one_object() -> None:
    root = load_recipe(
        linear("shared", "a/x") + linear("left", "shared") + linear("right", "shared") + linear(None, "left", "right")
    )
    left, right = inputs(root)
    assert inputs(left)[0] is inputs(right)[0]


def test_a_named_merge_may_be_a_base() -> None:
    stock = "---\nmerge_method: model_stock\nbase_model: first\nmodels: [{model: a/y}, {model: a/z}]\n"
    root = load_recipe(linear("first", "a/x") + stock)
    assert isinstance(root.base_model, Recipe)
    assert root.base_model.name == "first"


def test_a_recipe_may_be_written_in_a_models_place() -> None:
    root = load_recipe("""\
merge_method: linear
parameters: {weight: 1}
models:
  - model:
      merge_method: slerp
      base_model: a/x
      models: [{model: a/x}, {model: a/y}]
      parameters: {t: 0.5}
  - model: a/z
""")
    nested = inputs(root)[0]
    assert isinstance(nested, Recipe)
    assert nested.method == "slerp"
    assert nested.where == "models[0].model (line 4)"


def test_aliases_of_one_anchor_are_one_object() -> None:
    root = load_recipe("""\
merge_method: linear
parameters: {weight: 1}
models:
  - model: &inner {merge_method: passthrough, models: [{model: a/x}]}
  - model: {merge_method: linear, models: [{model: *inner}], parameters: {weight: 2}}
""")
    first, second = inputs(root)
    assert inputs(second)[0] is first


def test_a_fault_in_a_nested_recipe_is_named_with_its_whole_path() -> None:
    text = "merge_method: passthrough\nmodels:\n  - model:\n      merge_method: slerp\n      models: [{model: a/x}]\n"
    assert refusal(text) == "models[0].model.models (line 5): slerp needs a base_model"


def test_the_root_has_the_warnings_of_all() -> None:
    text = linear("first", "a/x") + "random_seed: 1\n" + linear(None, "first") + "random_seed: 2\n"
    assert load_recipe(text).warnings == (
        "random_seed (line 7): taken as the seed; mergekit ignores this key",
        "random_seed (line 13): taken as the seed; mergekit ignores this key",
    )


def test_a_circle_is_shown() -> None:
    text = linear("first", "second") + linear("second", "third") + linear("third", "first")
    problem = "models[0].model (line 18): the merges refer to each other in a circle: first → second → third → first"
    assert refusal(text) == problem
    itself = "models[0].model (line 6): the merges refer to each other in a circle: first → first"
    assert refusal(linear("first", "first")) == itself


def test_a_name_with_a_mistake_in_it_is_not_looked_for_on_the_hub() -> None:
    text = linear("first-merge", "a/x") + linear(None, "frist-merge")
    problem = "models[0].model (line 11): no document is called frist-merge; did you mean first-merge?"
    assert refusal(text) == problem


def test_old_hub_ids_without_an_owner_may_stand_beside_documents() -> None:
    root = load_recipe(linear("first-merge", "gpt2") + linear(None, "first-merge", "gpt2"))
    assert inputs(root)[1] == ModelRef("gpt2")


def test_a_merge_of_the_file_takes_no_adapter() -> None:
    text = linear("first", "a/x") + linear(None, "first+a/lora")
    problem = "models[0].model (line 11): first is a merge of this file, which takes no revision and no adapter"
    assert refusal(text) == problem


def test_names_are_unique() -> None:
    text = linear("first", "a/x") + linear("first", "a/y") + linear(None, "first")
    assert refusal(text) == "name (line 8): another document is called first already"


def test_a_document_that_nothing_needs_is_said() -> None:
    text = linear("spare", "a/y") + linear("result", "a/x")
    root = load_recipe(text)
    assert root.name == "result"
    assert root.warnings == ("recipe (line 2): no other merge of the file needs this one; it is not made",)


def test_two_results_are_refused() -> None:
    text = linear("one", "last") + linear("two", "last") + linear("last", "a/x")
    problem = "recipe (line 14): other merges need this last one, and none needs one and two; put the result last"
    assert refusal(text) == problem
