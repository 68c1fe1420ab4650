"""Parts of models: how they are found, and recipes that make each in its own way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from torch import Tensor

from hubmerge.errors import PlanError, RecipeError
from hubmerge.merge.explain import modules_text, parent_role
from hubmerge.merge.expr import Merge
from hubmerge.merge.modules import Module, find_modules, modules_called
from hubmerge.merge.normalise import normalised_recipe
from hubmerge.merge.pipeline import plan_recipe
from hubmerge.weights.reference import parse_reference
from tests.architectures import MODELS, llava
from tests.checkpoints import read_tensors, write_model, write_tensors
from tests.merge.merging import merged
from tests.merge.recipes import whole

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "architectures.md"
EYES = "vision_tower."
LANGUAGE = "language_model."
SEEING = ("llava", "qwen2-vl", "gemma3-vl")
Pair = tuple[Path, Path]


def pair_of(tmp_path_factory: pytest.TempPathFactory, architecture: str) -> Pair:
    folder = tmp_path_factory.mktemp(architecture.replace(" ", "-"))
    model = MODELS[architecture]()
    first, second = (write_model(folder / str(seed), model, seed=seed, dtype=torch.float32) for seed in (1, 2))
    return first, second


@pytest.fixture(scope="module")
def llavas(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_of(tmp_path_factory, "llava")


@pytest.fixture(scope="module")
def t5s(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_of(tmp_path_factory, "t5")


def modules_of(architecture: str) -> tuple[Module, ...]:
    with torch.device("meta"):
        model = MODELS[architecture]()
    return find_modules(model.state_dict(), model.config.to_dict())


def entries(*models: Path, **weights: float) -> list[dict[str, Any]]:
    return [{"model": str(model), **({"parameters": dict(weights)} if weights else {})} for model in models]


def modular(method: str, **modules: dict[str, Any]) -> dict[str, Any]:
    return {"merge_method": method, "dtype": "float32", "modules": modules}


def fault_of(recipe: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        plan_recipe(recipe)
    return str(caught.value)


def mean(a: Tensor, b: Tensor) -> Tensor:
    return (a + b) / 2


@pytest.mark.parametrize("architecture", [name for name in MODELS if name not in (*SEEING, "t5")])
def test_a_plain_language_model_is_one_module(architecture: str) -> None:
    found = modules_of(architecture)
    assert [(module.name, module.is_main, module.layer_count) for module in found] == [("default", True, 3)]


@pytest.mark.parametrize("architecture", SEEING)
def test_a_model_with_eyes_has_three(architecture: str) -> None:
    found = {module.name: (module.layer_count, module.is_main) for module in modules_of(architecture)}
    assert found == {"text_decoder": (3, True), "vision_tower": (2, False), "multi_modal_projector": (0, False)}


def test_an_encoder_and_a_decoder_share_the_rest() -> None:
    found = {module.name: (module.layer_count, module.is_main) for module in modules_of("t5")}
    assert found == {"encoder": (3, False), "decoder": (2, True), "shared": (0, False)}
    names = [name for module in modules_of("t5") if module.name == "shared" for name in module.names]
    assert names == ["shared.weight", "lm_head.weight"]


@pytest.mark.parametrize("architecture", MODELS)
def test_every_tensor_is_in_exactly_one_module(architecture: str) -> None:
    with torch.device("meta"):
        names = list(MODELS[architecture]().state_dict())
    assert sorted(name for module in modules_of(architecture) for name in module.names) == sorted(names)


def test_modules_may_be_called_as_their_tensors_are() -> None:
    found = modules_of("qwen2-vl")
    assert {
        word: [module.name for module in modules_called(found, word)]
        for word in ("blocks", "language_model", "visual", "merger", "model", "default")
    } == {
        "blocks": ["vision_tower"],
        "language_model": ["text_decoder"],
        "visual": ["vision_tower", "multi_modal_projector"],
        "merger": ["multi_modal_projector"],
        "model": [],
        "default": [],
    }
    assert modules_called(modules_of("llama"), "text_decoder") == modules_of("llama")


@pytest.mark.parametrize("slices", [False, True], ids=["models", "slices"])
def test_one_word_may_mean_a_tower_and_its_projector(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, *, slices: bool
) -> None:
    first, second = pair_of(tmp_path_factory, "qwen2-vl")
    sources = entries(first, second, weight=0.5)
    rows = [{"sources": [{**source, "layer_range": [0, 2]} for source in sources]}]
    visual = {"slices": rows} if slices else {"models": sources}
    recipe = {**modular("linear", visual=visual), "base_model": str(first)}
    a, b = read_tensors(first), read_tensors(second)
    for name, tensor in merged(recipe, tmp_path / "out").items():
        assert torch.equal(tensor, mean(a[name], b[name]) if "visual." in name else a[name]), name


def test_a_stack_that_follows_the_layers_or_stands_beside_them_is_no_module() -> None:
    names = [f"{prefix}.{n}.weight" for prefix in ("model.layers", "mtp.layers", "model.adapters") for n in range(2)]
    assert [str(module) for module in find_modules(names, {})] == ["default (2 layers, 6 tensors)"]


def test_each_module_is_merged_by_its_own_recipe(tmp_path: Path, llavas: Pair) -> None:
    first, second = llavas
    recipe = modular(
        "linear",
        text_decoder={"models": entries(*llavas), "parameters": {"weight": 0.5}},
        vision_tower={
            "merge_method": "task_arithmetic",
            "base_model": str(second),
            "models": entries(first),
            "parameters": {"weight": [0.25, 0.75]},
            "dtype": "float16",
        },
    )
    result, a, b = merged(recipe, tmp_path / "out"), read_tensors(first), read_tensors(second)
    assert result.keys() == a.keys()
    for name, tensor in result.items():
        weight = 0.75 if ".layers.1." in name else 0.25
        if name.startswith(LANGUAGE):
            expected = mean(a[name], b[name])
        elif name.startswith(EYES):
            expected = (b[name] + weight * (a[name] - b[name])).half()
        else:
            expected = a[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-4, msg=name)
    assert {tensor.dtype for name, tensor in result.items() if name.startswith(EYES)} == {torch.float16}


def test_the_plan_says_which_modules_are_made_and_which_are_carried_over(llavas: Pair) -> None:
    first, second = llavas
    plan = plan_recipe(modular("linear", text_decoder={"models": entries(*llavas, weight=0.5)}))
    carried = f"carried over from {first}: the recipe names other modules"
    assert plan.notes == (
        f"multi_modal_projector (4 tensors): {carried}",
        f"vision_tower (2 layers, 39 tensors): {carried}",
    )
    assert plan.layer_count == 3
    assert modules_text(plan) == (
        "text_decoder (3 layers, 30 tensors) by linear · multi_modal_projector (0 layers, 4 tensors) carried over"
        " · vision_tower (2 layers, 39 tensors) carried over"
    )
    assert parent_role(plan.recipe, parse_reference(str(second))) == "in text_decoder: weight 0.5"


def test_the_recipe_in_full_makes_the_same_merge(llavas: Pair) -> None:
    recipe = modular(
        "slerp",
        text_decoder={"models": entries(*llavas), "parameters": {"t": [{"filter": "mlp", "value": [0, 1]}]}},
        multi_modal_projector={"merge_method": "linear", "models": entries(*llavas, weight=1)},
    )
    plan = plan_recipe({**recipe, "base_model": str(llavas[0]), "parameters": {"t": 0.25}})
    again = plan_recipe(yaml.safe_load(normalised_recipe(plan)))
    assert [shard.tensors for shard in again.shards] == [shard.tensors for shard in plan.shards]


def test_the_layers_of_a_tower_are_stacked_and_counted_in_its_config(tmp_path: Path, llavas: Pair) -> None:
    first, second = (str(model) for model in llavas)
    slices = [{"sources": [{"model": m, "layer_range": r}]} for m, r in ((first, [0, 2]), (second, [1, 2]))]
    recipe = modular("passthrough", text_decoder={"models": entries(llavas[0])}, vision_tower={"slices": slices})
    merged(recipe, tmp_path / "out")
    model, report = transformers.LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values()), report
    assert (model.config.vision_config.num_hidden_layers, model.config.text_config.num_hidden_layers) == (3, 3)


def test_the_layers_of_an_encoder_are_stacked_and_counted_on_their_own(tmp_path: Path, t5s: Pair) -> None:
    first, second = (str(model) for model in t5s)
    slices = [{"sources": [{"model": m, "layer_range": r}]} for m, r in ((first, [0, 3]), (second, [1, 3]))]
    recipe = modular("passthrough", encoder={"slices": slices}, decoder={"models": entries(t5s[1])})
    result = merged(recipe, tmp_path / "out")
    model, report = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    assert (model.config.num_layers, model.config.num_decoder_layers) == (5, 2)
    assert torch.equal(result["shared.weight"], read_tensors(t5s[0])["shared.weight"])


def test_a_stack_that_the_config_cannot_count_is_refused(tmp_path: Path, llavas: Pair) -> None:
    model = write_tensors(tmp_path / "model", read_tensors(llavas[0]), {"text_config": {"num_hidden_layers": 3}})
    slices = [{"sources": [{"model": str(model), "layer_range": [0, 1]}]}]
    with pytest.raises(PlanError) as caught:
        plan_recipe(modular("passthrough", vision_tower={"slices": slices}))
    assert str(caught.value) == (
        f"vision_tower: gets another number of layers, which config.json of {model} cannot say"
    )


def test_encoder_and_decoder_have_gradients_of_their_own(t5s: Pair) -> None:
    plan = plan_recipe(whole("slerp", *t5s, base_model=t5s[0], parameters={"t": [0, 1]}))
    queries = [t for t in plan.tensors if "SelfAttention.q" in t.info.name]
    depths = {t.info.name: t.expr.settings.shared["t"] for t in queries if isinstance(t.expr, Merge)}
    assert [t for name, t in depths.items() if name.startswith("encoder")] == [0, 0.5, 1]
    assert [t for name, t in depths.items() if name.startswith("decoder")] == [0, 1]


def test_a_module_that_the_model_lacks_is_refused_with_those_it_has(llavas: Pair) -> None:
    assert fault_of(modular("linear", audio_tower={"models": entries(*llavas, weight=1)})) == (
        f"modules.audio_tower: {llavas[0]} has no module audio_tower; it has text_decoder (3 layers, 30 tensors), "
        "multi_modal_projector (4 tensors), vision_tower (2 layers, 39 tensors)"
    )


def test_a_module_that_another_model_lacks_is_refused(llavas: Pair, t5s: Pair) -> None:
    assert fault_of(modular("linear", vision_tower={"models": entries(llavas[0], t5s[0], weight=1)})) == (
        f"modules.vision_tower.models[1]: {t5s[0]} has no module vision_tower; it has decoder (2 layers, 28 tensors), "
        "encoder (3 layers, 26 tensors), shared (1 tensor)"
    )


def test_a_module_is_made_once(llavas: Pair) -> None:
    part = {"models": entries(*llavas, weight=1)}
    assert fault_of(modular("linear", text_decoder=part, language_model=part)) == (
        "modules.language_model: another entry is about the module text_decoder already"
    )


def test_towers_of_different_depth_are_refused_with_their_layers(tmp_path: Path, llavas: Pair) -> None:
    deep = write_model(tmp_path / "deep", llava(vision_layers=4), seed=3, dtype=torch.float32)
    assert fault_of(whole("linear", (llavas[0], {"weight": 1}), (deep, {"weight": 1}))) == (
        f"models: the models give different numbers of layers in vision_tower: {llavas[0]} 2, {deep} 4"
    )


def test_a_recipe_of_modules_is_published_with_all_that_a_merge_has(tmp_path: Path, llavas: Pair) -> None:
    merged(modular("linear", text_decoder={"models": entries(*llavas, weight=1)}), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [
        "LlavaForConditionalGeneration"
    ]
    assert "in text_decoder: weight 1" in (tmp_path / "out" / "README.md").read_text()


def test_the_recipes_of_the_documentation_are_planned(tmp_path: Path, llavas: Pair) -> None:
    plain = write_model(tmp_path / "plain", MODELS["llama"](), seed=4, dtype=torch.float32)
    named = {"org/seeing-a": llavas[0], "org/seeing-b": llavas[1], "org/plain": plain}
    recipes = re.findall(r"```yaml\n(.*?)```", DOCUMENTATION.read_text(), flags=re.DOTALL)
    assert len(recipes) == 3
    for recipe in recipes:
        for name, folder in named.items():
            recipe = recipe.replace(name, str(folder))
        assert len(plan_recipe(recipe).modules) == 3
