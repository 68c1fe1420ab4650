"""Adapters laid on bases by names and shapes alone."""

from __future__ import annotations

from typing import Any

import pytest

from hubmerge.weights.header import TensorInfo
from hubmerge.weights.lora import Fit, fit_adapter, module_of
from hubmerge.weights.lora_config import parse_lora_config

Shape = tuple[int, ...]
BASE: dict[str, Shape] = {
    "model.embed_tokens.weight": (32, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.q_proj.bias": (8,),
    "model.layers.0.mlp.up_proj.weight": (16, 8),
    "model.layers.1.self_attn.q_proj.weight": (8, 8),
    "lm_head.weight": (32, 8),
}
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
UP_PROJ = "base_model.model.model.layers.0.mlp.up_proj"


def fit(adapter: dict[str, Shape], base: dict[str, Shape] = BASE, *, dtype: str = "F32", **config: Any) -> Fit:
    infos = {name: TensorInfo(name, dtype, shape, 0, 0) for name, shape in adapter.items()}
    parsed = parse_lora_config({"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}, label="a/lora")
    return fit_adapter(parsed, infos, {name: ("BF16", shape) for name, shape in base.items()}, label="the base")


def pair(module: str, a: Shape, b: Shape) -> dict[str, Shape]:
    return {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}


def homes(fitted: Fit) -> list[str]:
    assert fitted.problems == ()
    return [*fitted.deltas, *fitted.replacements]


def test_a_pair_is_the_delta_of_one_weight() -> None:
    delta = fit(pair(UP_PROJ, (2, 8), (16, 2))).deltas["model.layers.0.mlp.up_proj.weight"]
    assert (delta.a.shape, delta.b.shape, delta.scale, delta.is_transposed) == ((2, 8), (16, 2), 2.0, False)


@pytest.mark.parametrize(
    ("name", "home"),
    [
        (Q_PROJ, "model.layers.0.self_attn.q_proj.weight"),
        ("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.q_proj.weight"),
        ("base_model.model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.q_proj.weight"),
        ("base_model.model.model.language_model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.q_proj.weight"),
        ("base_model.model._orig_mod.model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.q_proj.weight"),
    ],
)
def test_what_stands_in_front_of_a_name_may_differ(name: str, home: str) -> None:
    assert homes(fit(pair(name, (2, 8), (8, 2)))) == [home]


VLM: dict[str, Shape] = {
    "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight": (8, 8),
    "language_model.model.layers.0.self_attn.q_proj.weight": (8, 8),
}


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("model.layers.0.self_attn.q_proj", "language_model.model.layers.0.self_attn.q_proj.weight"),
        ("model.language_model.layers.0.self_attn.q_proj", "language_model.model.layers.0.self_attn.q_proj.weight"),
        ("model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj", next(iter(VLM))),
    ],
)
def test_a_tower_is_never_taken_for_the_language_model(name: str, home: str) -> None:
    assert homes(fit(pair(f"base_model.model.{name}", (2, 8), (8, 2)), VLM)) == [home]


def test_an_encoder_is_never_taken_for_a_decoder() -> None:
    name = "base_model.model.model.encoder.layers.0.self_attn.q_proj"
    fitted = fit(pair(name, (2, 8), (8, 2)), {"model.decoder.layers.0.self_attn.q_proj.weight": (8, 8)})
    assert fitted.problems == tuple((f"{name}.lora_{x}.weight", "it fits no tensor of the base") for x in "AB")


def test_two_places_that_fit_equally_well_are_a_problem() -> None:
    base = {f"{side}.layers.0.q_proj.weight": (8, 8) for side in ("left", "right")}
    name = "base_model.model.layers.0.q_proj"
    problem = "it fits left.layers.0.q_proj.weight and right.layers.0.q_proj.weight of the base equally well"
    assert fit(pair(name, (2, 8), (8, 2)), base).problems[0] == (f"{name}.lora_A.weight", problem)


@pytest.mark.parametrize(
    ("adapter", "problem"),
    [
        (pair(Q_PROJ.replace("q_proj", "w"), (2, 8), (8, 2)), "it fits no tensor of the base"),
        (pair(Q_PROJ.replace(".0.", ".7."), (2, 8), (8, 2)), "it fits no tensor of the base"),
        (pair(Q_PROJ, (2, 9), (8, 2)), "it is 2x9 and 8x2, which makes no delta of 8x8"),
        (pair(Q_PROJ, (4, 8), (8, 4)), "it is 4x8 and 8x4, but adapter_config.json gives it the rank 2"),
        (pair(Q_PROJ, (0,), (8, 2)), "it is 0 and 8x2, but adapter_config.json gives it the rank 2"),
        ({f"{Q_PROJ}.lora_A.weight": (2, 8)}, "it has no B beside it"),
        ({f"{Q_PROJ}.lora_B.weight": (8, 2)}, "it has no A beside it"),
        ({f"{Q_PROJ}.lora_magnitude_vector": (8,)}, "hubmerge does not know this kind of adapter tensor"),
        ({f"{Q_PROJ}.lora_B.bias": (8,)}, "hubmerge does not know this kind of adapter tensor"),
        (
            {"base_model.model.lm_head.weight": (40, 8)},
            "it takes the place of lm_head.weight, 32x8 BF16, but is 40x8 F32",
        ),
        ({"base_model.model.score.weight": (2, 8)}, "it fits no tensor of the base"),
    ],
)
def test_what_does_not_fit_is_a_problem(adapter: dict[str, Shape], problem: str) -> None:
    assert (next(iter(adapter)), problem) in fit(adapter).problems


def test_two_modules_for_one_weight_are_a_problem() -> None:
    twice = {**pair(Q_PROJ, (2, 8), (8, 2)), **pair(f"{Q_PROJ[:17]}layers.0.self_attn.q_proj", (2, 8), (8, 2))}
    home = "model.layers.0.self_attn.q_proj.weight"
    assert fit(twice).problems[0][1] == f"{home} is changed twice; {Q_PROJ}.lora_A.weight changes it too"


def test_factors_of_integers_are_a_problem() -> None:
    fitted = fit(pair(Q_PROJ, (2, 8), (8, 2)), dtype="U8")
    assert {problem for _, problem in fitted.problems} == {"its dtype U8 is not one of weights"}


def test_an_embedding_is_transposed() -> None:
    module = "base_model.model.model.embed_tokens"
    fitted = fit({f"{module}.lora_embedding_A": (2, 32), f"{module}.lora_embedding_B": (8, 2)})
    assert fitted.deltas["model.embed_tokens.weight"].is_transposed


@pytest.mark.parametrize("flag", [True, False])
def test_a_square_weight_is_transposed_like_those_whose_shape_shows_it(flag: bool) -> None:
    base = {**BASE, "model.layers.0.mlp.up_proj.weight": (8, 16)}
    fitted = fit({**pair(Q_PROJ, (2, 8), (8, 2)), **pair(UP_PROJ, (2, 8), (16, 2))}, base, fan_in_fan_out=flag)
    assert [delta.is_transposed for delta in fitted.deltas.values()] == [True, True]


CONV1D: dict[str, Shape] = {
    "h.0.attn.c_attn.weight": (8, 24),
    "h.0.attn.c_attn.bias": (24,),
    "h.0.attn.c_proj.weight": (8, 8),
    "h.0.attn.c_proj.bias": (8,),
}


@pytest.mark.parametrize("flag", [True, False])
def test_square_weights_alone_are_stored_as_the_base_s_biases_show(flag: bool) -> None:
    straight = fit(pair(Q_PROJ, (2, 8), (8, 2)), fan_in_fan_out=flag)
    sideways = fit(pair("base_model.model.h.0.attn.c_proj", (2, 8), (8, 2)), CONV1D, fan_in_fan_out=flag)
    assert [delta.is_transposed for fitted in (straight, sideways) for delta in fitted.deltas.values()] == [False, True]


def test_a_convolution_is_a_matrix_of_its_kernels() -> None:
    base = {"model.layers.0.conv.weight": (16, 8, 3)}
    fitted = fit(pair("base_model.model.model.layers.0.conv", (2, 8, 3), (16, 2, 1)), base)
    assert not fitted.deltas["model.layers.0.conv.weight"].is_transposed


@pytest.mark.parametrize(
    "name",
    [
        *("base_model.model.model.layers.0.self_attn.q_proj.bias", f"{Q_PROJ}.base_layer.bias"),
        *(f"{Q_PROJ}.modules_to_save.bias", f"{Q_PROJ}.modules_to_save.default.bias"),
    ],
)
def test_a_bias_or_a_saved_module_takes_the_place_of_the_base_s(name: str) -> None:
    assert homes(fit({name: (8,)})) == ["model.layers.0.self_attn.q_proj.bias"]


@pytest.mark.parametrize(
    ("name", "module"),
    [
        (f"{Q_PROJ}.lora_A.weight", "model.layers.0.self_attn.q_proj"),
        ("base_model.model.lm_head.base_layer.weight", "lm_head"),
        ("base_model.model.wte.lora_embedding_A", "wte"),
        ("base_model.model.lm_head.modules_to_save.default.weight", "lm_head"),
    ],
)
def test_the_module_of_a_tensor(name: str, module: str) -> None:
    assert module_of(name) == module


def test_a_module_that_peft_saved_under_both_of_its_names_is_one() -> None:
    names = ["lm_head.modules_to_save.default.weight", "lm_head.original_module.weight", "lm_head.weight"]
    for order in (names, names[::-1]):
        fitted = fit({f"base_model.model.{name}": (32, 8) for name in order})
        assert homes(fitted) == ["lm_head.weight"]
        assert fitted.replacements["lm_head.weight"].name == "base_model.model.lm_head.weight"


def test_two_copies_of_one_weight_are_a_problem() -> None:
    fitted = fit(dict.fromkeys(("base_model.model.lm_head.weight", "lm_head.weight"), (32, 8)))
    assert fitted.problems == (("lm_head.weight", "lm_head.weight is replaced twice"),)
