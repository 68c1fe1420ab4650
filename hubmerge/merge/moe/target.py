"""The architectures that a mixture of experts can have: what they are made of, and config.json of each."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hubmerge.merge.recipe import Mixture
from hubmerge.merge.result_config import DROPPED_KEYS, set_dtype

EXPERT_PARTS = ("mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight")
RESIDUAL_PART = "mlp.down_proj.weight"

_NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")
_ATTENTION = tuple(f"self_attn.{projection}_proj.weight" for projection in "qkvo")


@dataclass(frozen=True)
class Target:
    """An architecture with experts, as its checkpoints are stored on the Hub.

    Attributes:
        name: What recipes call it; the beginning is enough.
        model_types: Dense models that it can be made of.
        shared_experts: How many it has beside the routed ones.
        dense_parts: Tensors of a layer that are taken from the base as they are.
        expert_names: For each of EXPERT_PARTS its name in an expert, `{}` being the expert's number.
        gate_name: Of the router in a layer.
        settings: What config.json says in any case.
    """

    name: str
    model_type: str
    architecture: str
    model_types: tuple[str, ...]
    shared_experts: int
    dense_parts: tuple[str, ...]
    expert_names: tuple[str, str, str]
    gate_name: str
    settings: Mapping[str, Any]


_ROUTED = ("mlp.experts.{}.gate_proj.weight", "mlp.experts.{}.up_proj.weight", "mlp.experts.{}.down_proj.weight")

SHARED_NAMES = tuple(f"mlp.shared_expert.{projection}_proj.weight" for projection in ("gate", "up", "down"))
SHARED_GATE_NAME = "mlp.shared_expert_gate.weight"

MIXTRAL = Target(
    name="mixtral",
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    model_types=("mistral", "llama"),
    shared_experts=0,
    dense_parts=(*_ATTENTION, *_NORMS),
    expert_names=(
        "block_sparse_moe.experts.{}.w1.weight",
        "block_sparse_moe.experts.{}.w3.weight",
        "block_sparse_moe.experts.{}.w2.weight",
    ),
    gate_name="block_sparse_moe.gate.weight",
    settings={"sliding_window": None},
)
QWEN2_MOE = Target(
    name="qwen",
    model_type="qwen2_moe",
    architecture="Qwen2MoeForCausalLM",
    model_types=("qwen2", "mistral", "llama"),
    shared_experts=1,
    dense_parts=(*_ATTENTION, *_NORMS, *(f"self_attn.{projection}_proj.bias" for projection in "qkv")),
    expert_names=_ROUTED,
    gate_name="mlp.gate.weight",
    settings={
        "sliding_window": None,
        "use_sliding_window": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    },
)
QWEN3_MOE = Target(
    name="qwen3",
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    model_types=("qwen3",),
    shared_experts=0,
    dense_parts=(*_ATTENTION, *_NORMS, "self_attn.q_norm.weight", "self_attn.k_norm.weight"),
    expert_names=_ROUTED,
    gate_name="mlp.gate.weight",
    settings={"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True},
)
TARGETS = (MIXTRAL, QWEN2_MOE, QWEN3_MOE)

_SILENT: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llama": {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
        "mistral": {"rms_norm_eps": 1e-6, "num_key_value_heads": 8},
        "qwen2": {"num_key_value_heads": 32},
        "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
    }
)
"""What transformers takes where a dense config.json is silent and a class with experts would take something else."""

_SILENT_THETA = 10_000.0


def find_target(model_type: str, mixture: Mixture) -> Target | str:
    """Returns the architecture of a mixture of such models, or a sentence that says why there is none."""
    wanted = mixture.architecture
    named = [target for target in TARGETS if wanted is None or _is_called(target, wanted)]
    if not named:
        return f"hubmerge makes no mixture called {wanted}; it makes {_listed()}"
    fitting = [target for target in named if model_type in target.model_types]
    if not fitting:
        return f"no mixture can be made of {model_type} models; hubmerge makes {_listed()}"
    shared = len(mixture.shared_experts)
    found = next((target for target in fitting if target.shared_experts == shared), None)
    if found is None:
        needs = " and ".join(f"{target.architecture} has {target.shared_experts}" for target in fitting)
        return f"the recipe has {shared} shared experts, but {needs}"
    return found


def mixture_config(
    base: Mapping[str, Any], target: Target, mixture: Mixture, *, intermediate: int, dtype: str, has_bias: bool
) -> dict[str, Any]:
    """Returns config.json of a mixture.

    Args:
        base: config.json of the base model.
        target: Its architecture.
        mixture: What the recipe says of the experts.
        intermediate: Width of each expert.
        dtype: safetensors code of the weights.
        has_bias: Whether queries, keys and values have one.
    """
    config = {key: copy.deepcopy(value) for key, value in base.items() if key not in DROPPED_KEYS}
    config = {**_unsaid(config), **config, **copy.deepcopy(dict(target.settings))}
    config |= {
        "architectures": [target.architecture],
        "model_type": target.model_type,
        "num_experts_per_tok": mixture.experts_per_token,
        "intermediate_size": intermediate,
    }
    set_dtype(config, dtype)
    if target is MIXTRAL:
        return config | {"num_local_experts": len(mixture.experts)}
    config |= {"num_experts": len(mixture.experts), "moe_intermediate_size": intermediate}
    if target is QWEN2_MOE:
        config |= {"shared_expert_intermediate_size": intermediate, "qkv_bias": has_bias}
        config.pop("layer_types", None)  # says which layers slide, and none does
    return config


def _unsaid(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the base's class adds to its config.json and the class with experts would add differently."""
    model_type = config["model_type"]
    unsaid = dict(_SILENT[model_type])
    if "rope_theta" not in config and "rope_parameters" not in config:
        unsaid["rope_theta"] = _SILENT_THETA
    if model_type == "llama":
        unsaid["num_key_value_heads"] = config.get("num_attention_heads", 32)
    return unsaid


def _is_called(target: Target, wanted: str) -> bool:
    """Whether a recipe's word means the architecture: by our name, by its model type or by its class."""
    word = wanted.lower().replace(" ", "_").replace("-", "_")
    return any(name.lower().startswith(word) for name in (f"{target.name}_moe", target.model_type, target.architecture))


def _listed() -> str:
    return ", ".join(f"{target.name} of {' or '.join(target.model_types)}" for target in TARGETS)
