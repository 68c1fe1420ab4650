from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.errors import RecipeError
from hubmerge.merge.recipe import Recipe, Slice, SliceSource, load_recipe
from hubmerge.merge.settings import Case, Constant, Filtered, Gradient
from hubmerge.weights.reference import ModelRef
from tests.merge.recipe.recipes import SLERP, STACK, TIES, changed, refusal, warnings

ONE, TWO, BASE, OTHER = (ModelRef(f"org/{name}") for name in ("one", "two", "base", "other"))


def test_whole_models_are_one_slice_without_ranges() -> None:
    assert load_recipe(SLERP) == Recipe(
        method="slerp",
        slices=(Slice((SliceSource(BASE, None, {}), SliceSource(OTHER, None, {})), None, {}),),
        whole_models=True,
        base_model=BASE,
        parameters={"t": Constant(0.5)},
        dtype="bfloat16",
    )


@pytest.mark.parametrize("empty", ["models: []", "slices: []", "modules: {}"])
def test_an_empty_list_beside_what_is_merged_says_nothing(empty: str) -> None:
    full = STACK if empty != "slices: []" else TIES
    assert load_recipe(f"{empty}\n{full}") == load_recipe(full)


def test_a_folder_that_took_a_repos_place_loses_the_revision(tmp_path: Path) -> None:
    recipe = f"merge_method: passthrough\nmodels:\n  - model: {tmp_path}@v1.0+org/adapter@v2\n"
    loaded = load_recipe(recipe)
    assert loaded.donor == ModelRef(str(tmp_path), adapter=ModelRef("org/adapter", "v2"))
    assert loaded.warnings == (
        f"models[0].model (line 3): {tmp_path} is a folder, which has no revision; v1.0 is ignored",
    )


def test_slices_keep_their_order_and_ranges() -> None:
    recipe = load_recipe(STACK)
    assert [slice_.sources[0].layer_range for slice_ in recipe.slices] == [(0, 24), (8, 32)]
    assert [slice_.sources[0].model for slice_ in recipe.slices] == [ONE, TWO]
    assert not recipe.whole_models


def test_a_slice_has_a_base_and_parameters_of_its_own() -> None:
    recipe = load_recipe("""\
merge_method: slerp
slices:
  - base_model: org/one
    parameters: {t: 0.25}
    sources:
      - {model: org/one, layer_range: [0, 2]}
      - {model: org/two, layer_range: [2, 4]}
""")
    assert recipe.slices[0].base_model == ONE
    assert recipe.slices[0].parameters == {"t": Constant(0.25)}


def test_modules_are_recipes_by_part() -> None:
    recipe = load_recipe("""\
merge_method: linear
modules:
  text_decoder:
    parameters: {weight: 1}
    slices:
      - sources: [{model: org/one, layer_range: [0, 2]}]
  vision_tower:
    models: [{model: org/two, parameters: {weight: 2}}]
""")
    assert recipe.slices == ()
    assert recipe.modules is not None
    text, vision = recipe.modules.values()
    assert text.slices == (Slice((SliceSource(ONE, (0, 2), {}),), None, {}),)
    assert (text.parameters, text.whole_models) == ({"weight": Constant(1)}, False)
    assert vision.slices == (Slice((SliceSource(TWO, None, {"weight": Constant(2)}),), None, {}),)
    assert (vision.parameters, vision.whole_models) == ({}, True)


def test_a_module_takes_what_it_does_not_say_from_its_recipe() -> None:
    recipe = load_recipe("""\
merge_method: slerp
base_model: org/one
dtype: bfloat16
parameters: {t: 0.25}
seed: 7
modules:
  text_decoder:
    parameters: {t: [{filter: mlp, value: 1}]}
    models: [{model: org/one}, {model: org/two}]
  vision_tower:
    merge_method: linear
    base_model: org/two
    dtype: float32
    parameters: {weight: 1}
    models: [{model: org/one}, {model: org/two}]
""")
    assert recipe.modules is not None
    text, vision = recipe.modules.values()
    assert (text.method, text.base_model, text.dtype, text.seed) == ("slerp", ONE, "bfloat16", 7)
    assert text.parameters == {"t": Filtered((Case("mlp", Constant(1)), Case(None, Constant(0.25))))}
    assert (vision.method, vision.base_model, vision.dtype) == ("linear", TWO, "float32")
    assert vision.parameters == {"weight": Constant(1)}
    assert recipe.with_seed(9).modules["vision_tower"].seed == 9  # type: ignore[index]


def test_entries_know_where_they_stand() -> None:
    recipe = load_recipe(TIES)
    assert [source.where for source in recipe.slices[0].sources] == [
        "models[0] (line 4)",
        "models[1] (line 5)",
        "models[2] (line 9)",
    ]
    assert load_recipe(STACK).slices[1].where == "slices[1] (line 6)"


def test_settings_are_constants_gradients_and_filters() -> None:
    recipe = load_recipe(changed(SLERP, "t: 0.5", 't: [{filter: mlp, value: [0, 1]}, {filter: "*", value: 0.5}]'))
    assert recipe.parameters == {"t": Filtered((Case("mlp", Gradient((0, 1))), Case(None, Constant(0.5))))}
    assert load_recipe(changed(SLERP, "0.5", "{filter: mlp, value: 1}")).parameters == {
        "t": Filtered((Case("mlp", Constant(1)),))
    }


@pytest.mark.parametrize("written", ["1e-5", "'1e-5'", "1.0e-05", '"0.00001"', "+1E-5"])
def test_a_number_may_be_written_as_yaml_takes_for_text(written: str) -> None:
    assert load_recipe(changed(SLERP, "0.5", written)).parameters == {"t": Constant(1e-5)}


@pytest.mark.parametrize(
    ("written", "dtype"),
    [
        ("float16", "float16"),
        ("torch.bfloat16", "bfloat16"),
        ("bf16", "bfloat16"),
        ("fp16", "float16"),
        ("half", "float16"),
        ("FP32", "float32"),
        ("float", "float32"),
        ("double", "float64"),
        ("null", None),
    ],
)
def test_dtypes_are_read_under_their_usual_names(written: str, dtype: str | None) -> None:
    assert load_recipe(changed(SLERP, "dtype: bfloat16", f"out_dtype: {written}")).out_dtype == dtype


def test_a_backtick_from_a_model_card_is_seen_through_and_said() -> None:
    recipe = load_recipe(changed(SLERP, "dtype: bfloat16", "dtype: bfloat16`"))
    assert recipe.dtype == "bfloat16"
    assert recipe.warnings == ("dtype (line 8): bfloat16` is read as bfloat16",)


def test_seed_is_zero_unless_stated() -> None:
    assert load_recipe(SLERP).seed == 0
    assert load_recipe(f"{SLERP}seed: 7\n").seed == 7
    assert warnings(f"{SLERP}seed: 7\n") == ()


def test_random_seed_is_taken_as_the_seed_and_said() -> None:
    recipe = load_recipe(f"{SLERP}random_seed: 7\n")
    assert recipe.seed == 7
    assert recipe.warnings == ("random_seed (line 9): taken as the seed; mergekit ignores this key",)


def test_a_model_that_is_listed_twice_counts_once_with_its_first_parameters() -> None:
    recipe = load_recipe(changed(TIES, "org/two", "org/one"))
    assert [source.model for source in recipe.slices[0].sources] == [BASE, ONE]
    assert recipe.slices[0].sources[1].parameters["weight"] == Constant(0.5)
    assert recipe.warnings == ("models[2] (line 9): the same model as models[1] (line 5); it counts once",)


def test_a_model_may_stand_twice_in_a_slice_with_other_layers() -> None:
    text = changed(STACK, "  - sources:\n      - model: org/two\n", "      - model: org/one\n")
    recipe = load_recipe(changed(text, "passthrough", "linear\nparameters: {weight: 1}"))
    assert [source.layer_range for source in recipe.slices[0].sources] == [(0, 24), (8, 32)]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_of_any_editor_is_kept_as_it_was_written(tmp_path: Path, ending: str, mark: str) -> None:
    path = tmp_path / "recipe.yml"
    path.write_bytes((mark + SLERP.replace("\n", ending)).encode())
    recipe = load_recipe(path)
    assert recipe == load_recipe(SLERP) == load_recipe(str(path))
    assert recipe.text == SLERP.replace("\n", ending)


def test_a_mapping_is_read_like_text_and_its_faults_have_no_lines() -> None:
    content = {"merge_method": "slerp", "base_model": "org/base", "models": [{"model": "org/other"}]}
    assert load_recipe({**content, "parameters": {"t": (0, 1e-5)}}).parameters == {"t": Gradient((0, 1e-5))}
    with pytest.raises(RecipeError, match=r"^models: t is missing; slerp has no default for it$"):
        load_recipe(content)


def test_a_mapping_with_a_foreign_object_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^the recipe holds something that YAML cannot say: cannot represent an obj"):
        load_recipe({"merge_method": object()})


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    assert refusal("no/such.yml") == "cannot read the recipe no/such.yml: No such file or directory"
    assert refusal(str(tmp_path)) == f"cannot read the recipe {tmp_path}: Is a directory"
    assert refusal("a\x00b") == "cannot read the recipe a\x00b: embedded null byte"
    (tmp_path / "latin.yml").write_bytes(b"a: 1\nb: \xe9\n")
    assert refusal(str(tmp_path / "latin.yml")) == f"{tmp_path}/latin.yml is not UTF-8 text (line 2)"
    (tmp_path / "large.yml").write_bytes(b"# " * 2_500_000)
    assert refusal(str(tmp_path / "large.yml")) == f"{tmp_path}/large.yml is too large for a recipe"
