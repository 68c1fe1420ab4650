"""adapter_config.json of a LoRA adapter: how strongly it acts on each module, and what keeps it from being folded in.

The keys are those of peft's LoraConfig (peft 0.21). A key that is set and not known here is refused, as it may change
what the tensors mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hubmerge.errors import SourceError
from hubmerge.weights.reference import ModelRef, is_hub_id

Number = TypeVar("Number", int, float)

_HARMLESS = frozenset(
    {
        *("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
        *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out", "init_lora_weights"),
        *("modules_to_save", "ensure_weight_tying", "bias", "lora_dropout", "peft_version", "runtime_config"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "megatron_core"),
    }
)
"""What is read here, or only says how the adapter was trained."""

_REFUSED: Mapping[str, str] = {
    "use_dora": "is a DoRA adapter, whose magnitudes need the norms of the whole merged weights",
    "alora_invocation_tokens": "is an activated LoRA, which acts on the tokens after its invocation only",
    "layer_replication": "repeats layers of its base (layer_replication)",
    "target_parameters": "changes parameters that are no modules (target_parameters)",
    "trainable_token_indices": "changes single rows of the embedding (trainable_token_indices)",
    "lora_bias": "adds biases of its own to its B matrices (lora_bias)",
    "arrow_config": "routes between several adapters (arrow_config)",
}
"""Key of adapter_config.json -> what an adapter is that sets it."""

_ADDITIVE_STARTS = ("gaussian", "eva", "orthogonal", "mica")
"""Initialisations that leave the base's weights alone, as true and false do."""

_HEAVY_PATTERN = re.compile(r"\)\s*[*+?{]|([*+?{].*){4}")
"""Regular expressions that can take for ever; a repo's author writes them, so they are not trusted."""

_QUANTISED_COPY = re.compile(r"-(unsloth-)?(bnb-4bit|4bit|8bit|gptq(-int4)?|awq)$")

PEFT_MERGE = "Merge it with peft's merge_and_unload, save the result, and name that folder instead."


@dataclass(frozen=True)
class LoraConfig:
    """What adapter_config.json says about the strength and the layout of an adapter's matrices.

    Attributes:
        rank: Inner dimension of B·A where no pattern says otherwise.
        alpha: The delta is B·A·alpha/rank, or B·A·alpha/√rank if `rank_stabilised` (https://arxiv.org/abs/2312.03732).
        rank_patterns: Patterns of module names with a rank of their own; the first match counts.
        saved_modules: Names, or last parts of names, of modules that the adapter replaces.
        keeps_tie: Whether a head that is tied to the embedding follows the adapter's change to it.
        base_model: What it was trained on, as peft loaded it.
    """

    rank: int
    alpha: float
    rank_patterns: tuple[tuple[re.Pattern[str], int], ...]
    alpha_patterns: tuple[tuple[re.Pattern[str], float], ...]
    rank_stabilised: bool
    saved_modules: tuple[str, ...]
    keeps_tie: bool
    base_model: str | None

    def rank_of(self, module: str) -> int:
        """Returns the rank of the module's matrices."""
        return _first_match(self.rank_patterns, module, self.rank)

    def scale_of(self, module: str) -> float:
        """Returns the factor of B·A."""
        rank = self.rank_of(module)
        return _first_match(self.alpha_patterns, module, self.alpha) / (
            math.sqrt(rank) if self.rank_stabilised else rank
        )

    def saves(self, module: str) -> bool:
        """Returns whether the adapter has a trained copy of the whole module."""
        return any(module == name or module.endswith(f".{name}") for name in self.saved_modules)


def parse_lora_config(config: Mapping[str, Any], *, label: str) -> LoraConfig:
    """Returns the meaning of an adapter_config.json.

    Raises:
        SourceError: It is not one of LoRA, it is broken, or the adapter does more than add low-rank matrices; the
            message begins with `label`.
    """
    _refuse_other_types(config, label)
    _refuse_variants(config, label)
    _refuse_changed_base(config, label)
    return LoraConfig(
        rank=_rank(config.get("r"), f"{label}/adapter_config.json: r"),
        alpha=_alpha(config.get("lora_alpha"), f"{label}/adapter_config.json: lora_alpha"),
        rank_patterns=tuple(
            (pattern, _rank(value, where)) for pattern, value, where in _patterns(config, "rank_pattern", label)
        ),
        alpha_patterns=tuple(
            (pattern, _alpha(value, where)) for pattern, value, where in _patterns(config, "alpha_pattern", label)
        ),
        rank_stabilised=bool(config.get("use_rslora")),
        saved_modules=tuple(map(str, config.get("modules_to_save") or ())),
        keeps_tie=bool(config.get("ensure_weight_tying")),
        base_model=_text(config.get("base_model_name_or_path")),
    )


def other_base(config: Mapping[str, Any], base: ModelRef) -> str | None:
    """Returns the Hub id of the model that an adapter was trained on, if it plainly is another than `base`.

    Owners are not compared, as many repos are copies, and a quantised copy counts as what it was made from.
    """
    trained_on = _text(config.get("base_model_name_or_path"))
    if trained_on is None or base.is_local or not is_hub_id(trained_on) or "/" not in trained_on:
        return None
    return None if _model_name(trained_on) == _model_name(base.path) else trained_on


def _model_name(hub_id: str) -> str:
    return _QUANTISED_COPY.sub("", hub_id.rpartition("/")[2].lower())


def _refuse_other_types(config: Mapping[str, Any], label: str) -> None:
    kind = config.get("peft_type")
    if kind is None:
        raise SourceError(f"{label}/adapter_config.json has no peft_type, so it is not an adapter in peft's format")
    if kind != "LORA":
        raise SourceError(f"{label} is an adapter of type {kind}; only LORA can be folded in", hint=PEFT_MERGE)


def _refuse_variants(config: Mapping[str, Any], label: str) -> None:
    for key, value in config.items():
        if not value or key in _HARMLESS:
            continue
        if key in _REFUSED:
            raise SourceError(f"{label} {_REFUSED[key]}; that cannot be folded in", hint=PEFT_MERGE)
        raise SourceError(
            f"{label}/adapter_config.json sets {key}, and hubmerge does not know what that does to the weights",
            hint=PEFT_MERGE,
        )


def _refuse_changed_base(config: Mapping[str, Any], label: str) -> None:
    """Refuses adapters that were trained beside a base whose weights the initialisation had changed, as PiSSA does."""
    start = config.get("init_lora_weights", True)
    if isinstance(start, bool) or start is None or start in _ADDITIVE_STARTS:
        return
    raise SourceError(
        f"{label} was initialised by {start}, which changes the weights of the base too",
        hint="Save it again with peft's path_initial_model_for_weight_conversion, for the plain base.",
    )


def _patterns(config: Mapping[str, Any], key: str, label: str) -> list[tuple[re.Pattern[str], Any, str]]:
    """Returns (pattern of whole module names, value, path for messages), in the order of the file."""
    where = f"{label}/adapter_config.json: {key}"
    stated = config.get(key) or {}
    if not isinstance(stated, Mapping):
        raise SourceError(f"{where} is not an object")
    return [(_pattern(text, where), value, f"{where}.{text}") for text, value in stated.items()]


def _pattern(text: str, where: str) -> re.Pattern[str]:
    if _HEAVY_PATTERN.search(text):
        raise SourceError(f"{where}.{text} is a regular expression that may take for ever")
    try:
        return re.compile(rf"(?:.*\.)?(?:{text})")
    except re.error as error:
        raise SourceError(f"{where}.{text} is not a regular expression: {error}") from None


def _first_match(patterns: tuple[tuple[re.Pattern[str], Number], ...], module: str, default: Number) -> Number:
    return next((value for pattern, value in patterns if pattern.fullmatch(module)), default)


def _rank(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SourceError(f"{where} is not a rank: {value!r}")
    return value


def _alpha(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SourceError(f"{where} is not a number: {value!r}")
    return float(value)


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None
