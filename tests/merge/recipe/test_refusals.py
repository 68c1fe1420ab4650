from __future__ import annotations

import pytest

from hubmerge.errors import RecipeError
from hubmerge.merge.methods import METHODS
from hubmerge.merge.recipe import load_recipe
from tests.merge.recipe.recipes import SLERP, STACK, TIES, changed, refusal, warnings


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "merge_method: slerp",
            "merge_method: slrep",
            "merge_method (line 1): hubmerge does not know the method slrep; did you mean slerp?",
        ),
        ("merge_method: slerp", "merge_method: cabs", "merge_method (line 1): hubmerge does not know the method cabs"),
        ("merge_method: slerp", "merge_method: []", "merge_method (line 1): must be text, not a list"),
        ("merge_method: slerp\n", "", "recipe (line 1): merge_method is missing"),
        ("base_model: org/base\n", "", "models (line 2): slerp needs a base_model"),
        (
            "base_model: org/base\n",
            "base_model: org/third\n",
            "models (line 3): slerp takes exactly 2 models, the base_model included, not 3",
        ),
        (
            "base_model",
            "base_modle",
            "base_modle (line 2): unknown key; did you mean base_model?",
        ),
        ("parameters:\n  t: 0.5\n", "", "models (line 3): t is missing; slerp has no default for it"),
        ("  t: 0.5", "  T: 0.5", "parameters.T (line 7): unknown parameter; did you mean t?"),
        ("t: 0.5", "t: half", "parameters.t (line 7): must be a number, not `half`"),
        ("t: 0.5", "t: true", "parameters.t (line 7): must be a number, not true or false"),
        ("t: 0.5", "t:", "parameters.t (line 7): must be a number, not nothing"),
        ("t: 0.5", "t: .nan", "parameters.t (line 7): must be a finite number, not .nan"),
        ("t: 0.5", "t: .inf", "parameters.t (line 7): must be a finite number, not .inf"),
        ("t: 0.5", "t: 1e999", "parameters.t (line 7): must be a finite number, not 1e999"),
        ("t: 0.5", "t: [0, [1]]", "parameters.t[1] (line 7): must be a number, not a list"),
        ("t: 0.5", "t: []", "parameters.t (line 7): the list is empty"),
        (
            "t: 0.5",
            "t: [0, {value: 1}]",
            "parameters.t (line 7): is either a list of values over the layers or a list of filters, not both",
        ),
        ("t: 0.5", "t: [{filter: mlp}]", "parameters.t[0] (line 7): a filter needs its `value`"),
        (
            "t: 0.5",
            "t: [{fliter: mlp, value: 1}]",
            "parameters.t[0].fliter (line 7): unknown key; did you mean filter?",
        ),
        ("models:\n", "models: {}\nx:\n", "x (line 4): unknown key"),
        ("  - model: org/other\n", "  - org/other\n", "models[1] (line 5): must be a mapping, not text"),
        ("  - model: org/other\n", "  - {}\n", "models[1] (line 5): an entry needs its model"),
        (
            "model: org/other",
            "model: a/b/c",
            "models[1].model (line 5): `a/b/c` is neither a Hub id (`org/name`) nor a folder on this machine",
        ),
        (
            "dtype: bfloat16",
            "dtype: bfloat15",
            "dtype (line 8): must be one of float16, bfloat16, float32, float64, not bfloat15; did you mean bfloat16?",
        ),
        ("dtype: bfloat16", "seed: -1", "seed (line 8): must be between 0 and 2^63 - 1, not -1"),
        ("dtype: bfloat16", "seed: 1.5", "seed (line 8): must be a whole number, not 1.5"),
        (
            "dtype: bfloat16",
            "seed: 1\nrandom_seed: 1",
            "random_seed (line 9): seed says it already; a recipe takes one of them",
        ),
        (
            "dtype: bfloat16",
            "slices: [{}]",
            "recipe (line 1): takes exactly one of models, slices and modules, and has models and slices",
        ),
        ("dtype: bfloat16", "dtype: float16\ndtype: bfloat16", "dtype (line 9): the key is on line 8 already"),
    ],
)
def test_a_fault_is_named_with_its_path_and_line(old: str, new: str, problem: str) -> None:
    assert refusal(changed(SLERP, old, new)) == problem


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "density: 0.6",
            "densty: 0.6",
            "models[1].parameters.densty (line 8): unknown parameter; did you mean density?",
        ),
        (
            "      weight: 0.3\n",
            "      density: 0.3\n",
            "models[2] (line 9): weight is missing; ties needs it for each model",
        ),
        ("normalize: true", "normalize: maybe", "parameters.normalize (line 13): must be true or false, not `maybe`"),
        (
            "parameters:\n  normalize: true",
            "parameters: true",
            "parameters (line 12): must be a mapping, not true or false",
        ),
    ],
)
def test_a_fault_of_one_model_is_named_with_its_path_and_line(old: str, new: str, problem: str) -> None:
    assert refusal(changed(TIES, old, new)) == problem


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("[0, -1]", "[0, -1] counts from the end; layers are counted from 0, as in [0, 32]"),
        ("[24, 24]", "[24, 24] holds no layer: the second number is the layer after the last"),
        ("[24, 8]", "[24, 8] holds no layer: the second number is the layer after the last"),
        ("[0, 8, 2]", "takes the first layer and the one after the last, not 3 numbers"),
        ("0-24", "must be a list, not text"),
    ],
)
def test_a_layer_range_that_is_none_is_refused(written: str, problem: str) -> None:
    where = "slices[0].sources[0].layer_range (line 5)"
    assert refusal(changed(STACK, "[0, 24]", written)) == f"{where}: {problem}"


def test_a_layer_range_of_other_than_whole_numbers_is_refused() -> None:
    problem = "slices[0].sources[0].layer_range[1] (line 5): must be a whole number, not 23.5"
    assert refusal(changed(STACK, "[0, 24]", "[0, 23.5]")) == problem


def test_a_slice_needs_ranges_of_one_length() -> None:
    text = changed(STACK, "passthrough", "linear\nparameters: {weight: 1}")
    text = changed(text, "  - sources:\n      - model: org/two\n        layer_range: [8, 32]\n", "")
    text += "      - {model: org/two, layer_range: [0, 23]}\n"
    problem = "slices[0].sources[1] (line 7): gives 23 layers, and slices[0].sources[0] (line 5) gives 24"
    assert refusal(text) == problem


def test_a_slice_needs_sources_and_they_need_ranges() -> None:
    assert refusal("merge_method: passthrough\nslices: [{}]\n") == "slices[0] (line 2): a slice needs its sources"
    text = "merge_method: passthrough\nslices: [{sources: [{model: a/b}]}]\n"
    expected = "slices[0].sources[0] (line 2): a model of a slice needs its layer_range, as in [0, 32]"
    assert refusal(text) == expected


def test_passthrough_takes_one_model_a_slice() -> None:
    text = changed(STACK, "  - sources:\n      - model: org/two\n", "      - model: org/two\n")
    assert refusal(text) == "slices[0] (line 3): passthrough takes exactly 1 model, not 2"


def test_an_unknown_method_is_answered_with_the_list() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("merge_method: magic\nmodels: []\n")
    assert caught.value.hint == f"The methods are {', '.join(METHODS)}."


def test_two_merges_in_one_document_are_answered_with_the_separator() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(SLERP + SLERP)
    assert str(caught.value) == "merge_method (line 9): the key is on line 1 already"
    assert caught.value.hint == "Write --- between the merges of one file."


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (
            "genome",
            "this is a configuration of mergekit-evolve, which searches for a recipe; it is not a recipe itself",
        ),
    ],
)
def test_files_of_sister_tools_are_recognised(key: str, sentence: str) -> None:
    assert refusal(f"base_model: org/base\n{key}: []\n") == f"{key} (line 2): {sentence}"


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        ("dtype:", "t: 0.5\ndtype:", "t (line 8): has no effect here; it belongs under parameters"),
        (
            "dtype:",
            "layer_range: [0, 2]\ndtype:",
            "layer_range (line 8): has no effect here; it belongs in the sources of a slice",
        ),
        (
            "model: org/other",
            "model: org/other\n    revision: main",
            "models[1].revision (line 6): has no effect here; "
            "a revision is written after the model, as in org/name@revision",
        ),
        (
            "  t: 0.5",
            "  t: 0.5\n  select_topk: 1",
            "parameters.select_topk (line 8): has no effect: slerp has no parameter select_topk; sce has it",
        ),
        (
            "  t: 0.5",
            "  t: 0.5\n  weight: 1",
            "parameters.weight (line 8): has no effect: slerp has no parameter weight",
        ),
        (
            "model: org/other",
            "model: org/other\n    parameters: {t: 1}",
            "models[1].parameters.t (line 6): has no effect here; t is one value for all models and belongs above them",
        ),
    ],
)
def test_what_has_no_effect_is_a_warning(old: str, new: str, warning: str) -> None:
    assert warnings(changed(SLERP, old, new)) == (warning,)


def test_a_weight_of_the_base_has_no_effect() -> None:
    text = changed(TIES, "  - model: org/base\n", "  - model: org/base\n    parameters: {weight: 1}\n")
    assert warnings(text) == ("models[0] (line 4): weight has no effect on the base model",)


def test_two_parameters_of_the_base_have_none() -> None:
    text = changed(TIES, "  - model: org/base\n", "  - model: org/base\n    parameters: {weight: 1, density: 1}\n")
    assert warnings(text) == ("models[0] (line 4): weight and density have no effect on the base model",)


def test_lenient_reading_warns_of_unknown_keys() -> None:
    text = changed(TIES, "density", "densty") + "colour: red\n"
    assert load_recipe(text, lenient=True).warnings == (
        "colour (line 14): unknown key (ignored)",
        "models[1].parameters.densty (line 8): unknown parameter; did you mean density? (ignored)",
    )


def test_lenient_reading_still_refuses_wrong_values() -> None:
    with pytest.raises(RecipeError):
        load_recipe(changed(SLERP, "0.5", "half"), lenient=True)
