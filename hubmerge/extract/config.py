"""adapter_config.json and the names of an adapter's tensors, as peft reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from hubmerge.extract.factors import RankRule
from hubmerge.extract.parts import Kind
from hubmerge.extract.plan import ExtractPlan
from hubmerge.extract.report import Outcome
from hubmerge.extract.spool import Spooled
from hubmerge.weights.lora import PEFT_PREFIX


def kept_outcomes(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Returns the outcomes with tensors, without the saved modules in which nothing changed."""
    changed = {outcome.part.module for outcome in outcomes if outcome.is_changed}
    return [
        outcome
        for outcome in outcomes
        if outcome.tensors and (outcome.is_changed or (_is_saved(outcome) and outcome.part.module in changed))
    ]


def tensors_of(kept: Sequence[Outcome]) -> list[Spooled]:
    """Returns the adapter's tensors under their final names."""
    wrapped = {outcome.part.module for outcome in kept if outcome.rank}
    return [
        replace(tensor, name=_final_name(outcome, tensor.name, wrapped))
        for outcome in kept
        for tensor in outcome.tensors
    ]


def _final_name(outcome: Outcome, name: str, wrapped: Collection[str]) -> str:
    if outcome.part.kind is Kind.BIAS and outcome.part.module in wrapped:
        return f"{PEFT_PREFIX}{outcome.part.module}.base_layer.bias"
    return f"{PEFT_PREFIX}{name}"


def adapter_config(plan: ExtractPlan, kept: Sequence[Outcome], rule: RankRule) -> dict[str, Any]:
    """Returns adapter_config.json: alpha is the rank everywhere, so that B·A is added as it is."""
    ranks = {module: outcome.rank for outcome in kept if outcome.rank for module in outcome.part.modules}
    usual = rule.most if rule.energy is None else Counter(ranks.values()).most_common(1)[0][0]
    patterns = {
        name: rank
        for rank in dict.fromkeys(ranks.values())
        if rank != usual
        for name in _short([module for module, own in ranks.items() if own == rank], plan.modules, _is_last_part)
    }
    saved = dict.fromkeys(module for outcome in kept if _is_saved(outcome) for module in outcome.part.modules)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": plan.base.ref.path,
        "revision": plan.base.sha,
        "inference_mode": True,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "bias": "lora_only" if any(outcome.part.kind is Kind.BIAS for outcome in kept) else "none",
        "fan_in_fan_out": any(outcome.part.kind is Kind.TRANSPOSED for outcome in kept),
        "init_lora_weights": True,
        "target_modules": _short(ranks, plan.modules, _is_last_part),
        "modules_to_save": _short(saved, plan.modules, str.endswith) or None,
    }
    return {**config, "ensure_weight_tying": True} if any(outcome.part.tied_head for outcome in kept) else config


def _is_saved(outcome: Outcome) -> bool:
    return outcome.part.kind is Kind.SAVED


def _is_last_part(module: str, name: str) -> bool:
    return module.endswith(f".{name}")


def _short(chosen: Collection[str], modules: Sequence[str], matches: Callable[[str, str], bool]) -> list[str]:
    """Returns the shortest names by which peft finds these modules and no others.

    The last part of a name stands for all modules that end in it; where that would be too many, the whole names do.
    """
    leaves: dict[str, list[str]] = {}
    for module in chosen:
        leaves.setdefault(module.rpartition(".")[2], []).append(module)
    names: list[str] = []
    for leaf, members in leaves.items():
        meant = {module for module in modules if module == leaf or matches(module, leaf)}
        names += [leaf] if meant <= set(chosen) else members
    return names
