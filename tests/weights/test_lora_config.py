"""What adapter_config.json means, and which adapters are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hubmerge.errors import SourceError
from hubmerge.weights.lora_config import PEFT_MERGE, other_base, parse_lora_config
from hubmerge.weights.reference import ModelRef

PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}
Q_PROJ = "model.layers.3.self_attn.q_proj"


def refusal(config: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(SourceError) as caught:
        parse_lora_config(config, label="a/lora")
    return str(caught.value), caught.value.hint


@pytest.mark.parametrize(
    ("extra", "scale"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 16 / math.sqrt(8)),
        ({"lora_alpha": 4.5}, 4.5 / 8),
        ({"rank_pattern": {"q_proj": 4}}, 4.0),
        ({"rank_pattern": {"proj": 4}}, 2.0),
        ({"rank_pattern": {r"layers\.[0-3]\.self_attn\.q_proj": 4}}, 4.0),
        ({"rank_pattern": {"v_proj|q_proj": 4}}, 4.0),
        ({"rank_pattern": {"^model.layers.3.self_attn.q_proj": 4}}, 4.0),
        ({"alpha_pattern": {"k_proj": 1, "q_proj": 32, Q_PROJ: 64}}, 4.0),
        ({"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 2}, "use_rslora": True}, 1.0),
        ({"rank_pattern": None, "alpha_pattern": {}}, 2.0),
    ],
)
def test_the_scale_of_a_module(extra: dict[str, Any], scale: float) -> None:
    assert parse_lora_config({**PLAIN, **extra}, label="a/lora").scale_of(Q_PROJ) == scale


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_initialisations_that_leave_the_base_alone_are_fine(start: object) -> None:
    assert parse_lora_config({**PLAIN, "init_lora_weights": start}, label="a/lora").rank == 8


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "new"])
def test_initialisations_that_change_the_base_are_refused(start: str) -> None:
    assert refusal({**PLAIN, "init_lora_weights": start}) == (
        f"a/lora was initialised by {start}, which changes the weights of the base too",
        "Save it again with peft's path_initial_model_for_weight_conversion, for the plain base.",
    )


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"peft_type": "LOHA"}, "a/lora is an adapter of type LOHA; only LORA can be folded in"),
        ({"peft_type": "VERA"}, "a/lora is an adapter of type VERA; only LORA can be folded in"),
        (
            {"use_dora": True},
            "a/lora is a DoRA adapter, whose magnitudes need the norms of the whole merged weights; that cannot be "
            "folded in",
        ),
        (
            {"target_parameters": ["mlp.experts.gate_up_proj"]},
            "a/lora changes parameters that are no modules (target_parameters); that cannot be folded in",
        ),
        (
            {"kasa_config": {"beta": 1}},
            "a/lora/adapter_config.json sets kasa_config, and hubmerge does not know what that does to the weights",
        ),
        (
            {"use_next_year": True},
            "a/lora/adapter_config.json sets use_next_year, and hubmerge does not know what that does to the weights",
        ),
    ],
)
def test_adapters_that_do_more_than_add_are_refused(extra: dict[str, Any], message: str) -> None:
    assert refusal({**PLAIN, **extra}) == (message, PEFT_MERGE)


def test_an_unknown_key_that_is_not_set_does_no_harm() -> None:
    assert parse_lora_config({**PLAIN, "use_next_year": False, "next_config": {}}, label="a/lora").alpha == 16


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"fine_tune_type": "lora"}, "has no peft_type, so it is not an adapter in peft's format"),
        ({**PLAIN, "r": 0}, ": r is not a rank: 0"),
        ({**PLAIN, "r": "8"}, ": r is not a rank: '8'"),
        ({**PLAIN, "lora_alpha": float("nan")}, ": lora_alpha is not a number: nan"),
        ({"peft_type": "LORA", "r": 8}, ": lora_alpha is not a number: None"),
        ({**PLAIN, "rank_pattern": ["q_proj"]}, ": rank_pattern is not an object"),
        ({**PLAIN, "rank_pattern": {"q_proj": -1}}, ": rank_pattern.q_proj is not a rank: -1"),
        ({**PLAIN, "alpha_pattern": {"q_proj": True}}, ": alpha_pattern.q_proj is not a number: True"),
        ({**PLAIN, "rank_pattern": {"(q": 4}}, ": rank_pattern.(q is not a regular expression: "),
        (
            {**PLAIN, "rank_pattern": {"(a+)+$": 4}},
            ": rank_pattern.(a+)+$ is a regular expression that may take for ever",
        ),
        ({**PLAIN, "rank_pattern": {".*.*.*.*x": 4}}, "may take for ever"),
    ],
)
def test_a_broken_config_says_where(config: dict[str, Any], message: str) -> None:
    text, _ = refusal(config)
    assert text.startswith("a/lora/adapter_config.json")
    assert message in text


def test_saved_modules_are_named_whole_or_by_their_last_parts() -> None:
    config = parse_lora_config({**PLAIN, "modules_to_save": ["lm_head", "model.norm"]}, label="a/lora")
    assert [config.saves(name) for name in ("lm_head", "x.lm_head", "model.norm", "norm", "my_lm_head")] == [
        *(True, True, True),
        *(False, False),
    ]


@pytest.mark.parametrize(
    ("trained_on", "base", "expected"),
    [
        ("org/model-7b", "org/model-7b", None),
        ("unsloth/Model-7B", "org/model-7b", None),
        ("unsloth/model-7b-bnb-4bit", "org/Model-7B", None),
        ("unsloth/model-7b-unsloth-bnb-4bit", "org/Model-7B", None),
        ("org/model-7b-instruct", "org/model-7b", "org/model-7b-instruct"),
        ("/home/me/model", "org/model-7b", None),
        ("gpt2", "org/model-7b", None),
        (None, "org/model-7b", None),
        ("org/other", "./folder", None),
    ],
)
def test_another_base_is_noticed_where_it_is_plain(trained_on: str | None, base: str, expected: str | None) -> None:
    assert other_base({"base_model_name_or_path": trained_on}, ModelRef(base)) == expected
