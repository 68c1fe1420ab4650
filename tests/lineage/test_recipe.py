"""Published recipes put together into one that can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi

from hubmerge.errors import RecipeError
from hubmerge.lineage.crawl import crawl
from hubmerge.lineage.graph import Lineage, Relation
from hubmerge.lineage.recipe import rebuilt_recipe
from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import plan_recipe
from hubmerge.merge.recipe import Recipe, load_recipe
from hubmerge.weights.reference import ModelRef
from tests.checkpoints import push_folder, write_llama
from tests.lineage.graphs import graph, node
from tests.lineage.repos import Published, publish

INNER = "models:\n- model: b1/one\n- model: b1/two\nmerge_method: linear\nparameters: {weight: 0.5}\n"


def merged(node_id: str, recipe: str) -> object:
    return node(node_id, relation=Relation.MERGE, recipe=recipe)


def linear(*models: str) -> str:
    entries = "".join(f"- {{model: {model}, parameters: {{weight: 0.5}}}}\n" for model in models)
    return f"models:\n{entries}merge_method: linear\n"


def sources(recipe: Recipe) -> list[object]:
    return [source.model for source in recipe.slices[0].sources]


def test_a_published_parent_becomes_a_document(alpha: Lineage, published_monarch: str) -> None:
    recipe = rebuilt_recipe(crawl("mlabonne/OmniBeagle-7B", token=False))
    documents = list(yaml.safe_load_all(recipe))
    assert [document["name"] for document in documents] == ["BeagSake-7B", "OmniBeagle-7B"]
    assert recipe.startswith("# mlabonne/OmniBeagle-7B, made again from the recipes that its ancestors publish: 2 in")
    loaded = load_recipe(recipe)
    assert isinstance(sources(loaded)[2], Recipe)
    assert loaded.warnings == ()


def test_what_cannot_be_read_is_told_in_the_heading(published_monarch: str) -> None:
    lines = rebuilt_recipe(crawl("mlabonne/Monarch-7B", token=False)).splitlines()
    assert lines[1] == "# mlabonne/NeuBeagle-7B cannot be read: deleted or private."


def test_a_model_that_is_no_merge_has_none_and_names_the_nearest(alpha: Lineage) -> None:
    with pytest.raises(RecipeError) as caught:
        rebuilt_recipe(alpha)
    assert str(caught.value) == "mlabonne/AlphaMonarch-7B publishes no recipe (fine-tune · dpo)"
    assert caught.value.hint == "The nearest ancestor with one: hubmerge lineage mlabonne/Monarch-7B --recipe"


def test_shared_merges_are_written_once_and_before_what_needs_them() -> None:
    lineage = graph(
        "x/a < x/b x/d; x/b < x/d x/e; x/d < x/f x/g",
        merged("x/a", linear("x/b", "x/d")),
        merged("x/b", linear("x/d", "x/e")),
        merged("x/d", linear("x/f", "x/g")),
    )
    recipe = rebuilt_recipe(lineage)
    assert [document["name"] for document in yaml.safe_load_all(recipe)] == ["d", "b", "a"]
    inner, shared = sources(load_recipe(recipe))
    assert isinstance(inner, Recipe)
    assert sources(inner)[0] is shared


def test_repos_of_the_same_name_get_documents_of_their_own() -> None:
    lineage = graph(
        "x/m < y/m z/m; y/m < p/a p/b; z/m < p/c p/d",
        merged("x/m", linear("y/m", "z/m")),
        merged("y/m", linear("p/a", "p/b")),
        merged("z/m", linear("p/c", "p/d")),
    )
    first, second = sources(load_recipe(rebuilt_recipe(lineage)))
    assert (sources(first), sources(second)) == (
        [ModelRef("p/a"), ModelRef("p/b")],
        [ModelRef("p/c"), ModelRef("p/d")],
    )


def test_inner_documents_of_a_published_tree_keep_apart() -> None:
    tree = f"name: step\n{linear('p/a', 'p/b')}---\n{linear('step', 'p/c')}"
    lineage = graph(
        "x/a < x/b x/c; x/b < p/a p/b p/c; x/c < p/a p/b p/c",
        merged("x/a", linear("x/b", "x/c")),
        merged("x/b", tree),
        merged("x/c", tree),
    )
    recipe = rebuilt_recipe(lineage)
    names = [document["name"] for document in yaml.safe_load_all(recipe)]
    assert sorted(names) == ["a", "b", "b.step", "c", "c.step"]
    load_recipe(recipe)


def test_a_parent_whose_recipe_is_broken_stays_a_model() -> None:
    lineage = graph("x/a < x/b x/c", merged("x/a", linear("x/b", "x/c")), merged("x/b", "models: ["))
    assert sources(load_recipe(rebuilt_recipe(lineage))) == [ModelRef("x/b"), ModelRef("x/c")]


def test_circles_do_not_reach_the_recipe() -> None:
    lineage = graph(
        "x/a < x/b x/c; x/b < x/a x/d", merged("x/a", linear("x/b", "x/c")), merged("x/b", linear("x/a", "x/d"))
    )
    inner = sources(load_recipe(rebuilt_recipe(lineage)))[0]
    assert isinstance(inner, Recipe)
    assert sources(inner)[0] == ModelRef("x/a")


def test_keys_that_need_lenient_reading_are_said() -> None:
    lineage = graph("x/a < x/b x/c", merged("x/a", linear("x/b", "x/c") + "colour: blue\n"))
    recipe = rebuilt_recipe(lineage)
    assert "# Some of its keys are not known here: give --lenient to the command that takes it." in recipe.splitlines()
    load_recipe(recipe, lenient=True)


def test_the_recipe_of_published_merges_can_be_planned(hub: LocalHub, tmp_path: Path) -> None:
    token = hub.create_user("replay")
    for number, name in enumerate(("one", "two", "three")):
        push_folder(token, f"replay/{name}", write_llama(tmp_path / name, seed=number, layers=1))
    publish(
        hub,
        Published("replay/inner", {"tags": ["merge"]}, recipe=linear("replay/one", "replay/two")),
        Published("replay/outer", {"tags": ["merge"]}, recipe=linear("replay/inner", "replay/three")),
    )
    plan = plan_recipe(rebuilt_recipe(crawl("replay/outer", token=False)))
    assert [str(parent.ref) for parent in plan.parents] == ["replay/one", "replay/two", "replay/three"]
    assert HfApi(token=token).model_info("replay/one").sha == plan.parents[0].sha
