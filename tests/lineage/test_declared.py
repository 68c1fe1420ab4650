"""What one repo says of its parents, in every shape that people have given it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hubmerge.lineage.declared import RepoTexts, card_texts, declared, wanted_files
from hubmerge.lineage.graph import Evidence, Relation
from tests.lineage.monarch import MISTRAL, MONARCH_RECIPE
from tests.lineage.repos import fenced

MODELS = ["mlabonne/OmniTruthyBeagle-7B-v0", "mlabonne/NeuBeagle-7B", "mlabonne/NeuralOmniBeagle-7B"]


def repo(body: str = "", **metadata: object) -> RepoTexts:
    return RepoTexts(repo_id="me/model", sha="1" * 40, metadata=metadata, body=body)


def parents(texts: RepoTexts) -> list[str]:
    return [parent.model.text for parent in declared(texts).parents]


@pytest.mark.parametrize(
    ("base_model", "expected"),
    [
        ("a/b", ["a/b"]),
        ("a/b, c/d", ["a/b", "c/d"]),
        (["a/b", "c/d"], ["a/b", "c/d"]),
        (["a/b", "a/b"], ["a/b"]),
        (None, []),
        ([], []),
        ([None, ""], []),
        ({"name": "a/b"}, ["a/b"]),
        ([{"model": "a/b"}, {"repo_id": "c/d"}], ["a/b", "c/d"]),
        (7, []),
        ("/home/me/model", ["/home/me/model"]),
    ],
)
def test_base_model_is_read_in_any_shape(base_model: object, expected: list[str]) -> None:
    assert parents(repo(base_model=base_model)) == expected


def test_one_parent_makes_a_finetune_and_several_a_merge() -> None:
    assert declared(repo(base_model="a/b")).relation is Relation.FINETUNE
    assert declared(repo(base_model=["a/b", "c/d"])).relation is Relation.MERGE
    assert declared(repo()).relation is None


@pytest.mark.parametrize("relation", list(Relation))
def test_a_stated_relation_counts(relation: Relation) -> None:
    assert declared(repo(base_model=["a/b", "c/d"], base_model_relation=str(relation))).relation is relation


@pytest.mark.parametrize("relation", list(Relation))
def test_tags_name_parents_and_relation(relation: Relation) -> None:
    said = declared(replace(repo(), tags=(f"base_model:{relation}:a/b", "base_model:a/b", "dataset:x/y")))
    assert (said.relation, [parent.model.text for parent in said.parents]) == (relation, ["a/b"])
    assert said.parents[0].evidence == (Evidence.TAG,)


@pytest.mark.parametrize(
    "metadata", [{"quantized_by": "TheBloke"}, {"tags": ["gguf"]}, {"library_name": "gguf"}, {"tags": ["4-bit", "awq"]}]
)
def test_a_quantised_copy_is_known_by_its_metadata(metadata: dict[str, object]) -> None:
    assert declared(repo(base_model="a/b", **metadata)).relation is Relation.QUANTIZED


def test_a_quantised_copy_is_known_by_its_name_and_does_not_take_over_the_recipe_in_its_card() -> None:
    copy = replace(repo(fenced(MONARCH_RECIPE), base_model="mlabonne/Monarch-7B"), repo_id="x/Monarch-7B-GGUF")
    said = declared(copy)
    assert (said.relation, said.recipe) == (Relation.QUANTIZED, None)
    assert [parent.model.text for parent in said.parents] == ["mlabonne/Monarch-7B"]


def test_a_finetune_that_shows_its_parents_recipe_is_no_merge() -> None:
    said = declared(repo(fenced(MONARCH_RECIPE), base_model="mlabonne/Monarch-7B", tags=["dpo"]))
    assert (said.relation, said.method) == (Relation.FINETUNE, "dpo")
    assert len(said.parents) == 1


def test_the_base_of_a_recipe_is_a_parent_though_the_card_leaves_it_out() -> None:
    said = declared(repo(fenced(MONARCH_RECIPE), base_model=MODELS))
    assert (said.relation, said.method) == (Relation.MERGE, "dare_ties")
    assert [parent.model.text for parent in said.parents] == [*MODELS, MISTRAL]
    assert [parent.is_base for parent in said.parents] == [False, False, False, True]
    assert said.parents[0].evidence == (Evidence.CARD, Evidence.README_RECIPE)
    assert said.parents[3].evidence == (Evidence.README_RECIPE,)


def test_a_recipe_file_goes_before_the_one_in_the_card() -> None:
    texts = replace(repo(fenced(MONARCH_RECIPE)), recipe="merge_method: linear\nmodels:\n- model: a/b\n- model: c/d\n")
    assert parents(texts) == ["a/b", "c/d"]
    assert declared(texts).method == "linear"


def test_a_recipe_names_parents_at_their_revisions_and_with_adapters() -> None:
    recipe = """\
merge_method: slerp
base_model: {model: {path: a/b, revision: v1}}
slices:
- sources:
  - {model: a/b@v1, layer_range: [0, 4]}
  - {model: c/d+e/f, layer_range: [0, 4]}
"""
    said = declared(replace(repo(base_model=["a/b", "c/d"]), recipe=recipe))
    assert [(each.model.repo_id, each.model.revision) for each in said.parents] == [
        ("a/b", "v1"),
        ("c/d", None),
        ("e/f", None),
    ]


def test_documents_and_inline_recipes_are_seen_through() -> None:
    recipe = """\
name: inner
merge_method: linear
models: [{model: a/b}, {model: c/d}]
---
merge_method: ties
base_model: e/f
models:
- model: inner
- model: {merge_method: linear, models: [{model: g/h}]}
"""
    said = declared(replace(repo(), recipe=recipe))
    assert ([each.model.text for each in said.parents], said.method) == (["a/b", "c/d", "e/f", "g/h"], "ties")


def test_broken_yaml_still_names_the_models() -> None:
    broken = "models:\n\t- model: a/b\n   - model: 'c/d' # second\nmerge_method: ties\nbase_model: e/f\n"
    said = declared(repo(fenced(broken)))
    assert ([each.model.text for each in said.parents], said.method) == (["a/b", "c/d", "e/f"], "ties")
    assert [each.is_base for each in said.parents] == [False, False, True]
    assert said.problems == ("the recipe in README.md is not valid YAML",)


def test_a_mixture_of_experts_is_a_merge() -> None:
    recipe = "base_model: a/b\nexperts:\n- source_model: c/d\n  positive_prompts: [x]\n- source_model: e/f\n"
    said = declared(replace(repo(), recipe=recipe))
    assert (said.relation, said.method) == (Relation.MERGE, "mixture of experts")
    assert [each.model.text for each in said.parents] == ["a/b", "c/d", "e/f"]


def test_an_adapter_names_its_model() -> None:
    said = declared(replace(repo(), adapter='{"base_model_name_or_path": "a/b"}'))
    assert (said.relation, [each.model.text for each in said.parents]) == (Relation.ADAPTER, ["a/b"])


def test_a_broken_adapter_config_is_a_problem_and_no_end() -> None:
    said = declared(replace(repo(base_model="a/b"), adapter="{"))
    assert (said.relation, said.problems) == (Relation.ADAPTER, ("adapter_config.json is not a JSON object",))


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("This is a DPO fine-tune of [a/b](https://huggingface.co/a/b).", ["https://huggingface.co/a/b"]),
        ("It is a fine-tuned version of [b](https://huggingface.co/a/b) on my data.", ["https://huggingface.co/a/b"]),
        ("Trained on [a/b](https://huggingface.co/datasets/a/b).", []),
        ("See also [a/b](https://huggingface.co/a/b).", []),
        ("```\nfine-tuned from [a/b](https://huggingface.co/a/b)\n```", []),
    ],
)
def test_a_sentence_names_a_parent_where_nothing_else_does(sentence: str, expected: list[str]) -> None:
    said = declared(repo(sentence))
    assert [each.model.text for each in said.parents] == expected
    assert parents(repo(sentence, base_model="x/y")) == ["x/y"]


@pytest.mark.parametrize(
    "sentence",
    ["It may be **contaminated** with GSM8K.", "We found contamination.", "There is a test set leak in it."],
)
def test_declared_contamination_is_quoted(sentence: str) -> None:
    said = declared(repo(f"# A model\n\nFine. {sentence} More.\n"))
    assert said.contamination == (sentence.replace("*", ""),)


@pytest.mark.parametrize(
    "sentence",
    ["It is not contaminated.", "No sign of contamination.", "Free of contamination.", "The data is decontaminated."],
)
def test_denied_contamination_is_no_warning(sentence: str) -> None:
    assert declared(repo(sentence)).contamination == ()


def test_files_beside_the_card_are_asked_for_only_where_they_may_say_more() -> None:
    assert wanted_files(repo(base_model="a/b")) == ()
    assert wanted_files(repo(base_model="a/b", tags=["merge"])) == ("mergekit_config.yml",)
    assert wanted_files(repo(base_model="a/b", library_name="peft")) == ("adapter_config.json",)
    assert wanted_files(repo()) == ("mergekit_config.yml", "adapter_config.json")


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"---\n: [\n---\n", b"---\n- a\n---\n"])
def test_a_card_that_cannot_be_read_declares_nothing(content: bytes | None) -> None:
    assert declared(card_texts("me/model", None, content)).parents == ()
