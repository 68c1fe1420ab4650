"""Reads a mixture of experts: the form of recipe that says which dense models become the experts of one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hubmerge.merge.recipe.fields import Remarks, did_you_mean, entries, fault, mapping, number, text, whole_number
from hubmerge.merge.recipe.keys import EXPERT_KEYS, MIXTURE_KEYS, RECIPE_KEYS
from hubmerge.merge.recipe.language import check_keys
from hubmerge.merge.recipe.model import Expert, Mixture, Source
from hubmerge.merge.recipe.yaml_tree import Item

METHOD = "moe"

PROMPTED_MODES = ("hidden", "hidden_last", "hidden_avg", "cheap_embed")
GATE_MODES = (*PROMPTED_MODES, "random", "uniform_random")

_FORM_KEYS = ("models", "slices", "modules")
_UNUSED_KEYS = ("parameters", "tokenizer", "tokenizer_source")

ReadSource = Callable[[Item], Source]


def is_mixture(item: Item) -> bool:
    """Returns whether a mapping is a recipe of this form; it need not say so by its merge_method."""
    found = mapping(item)
    stated = found.get("merge_method")
    return "experts" in found or "gate_mode" in found or (stated is not None and stated.text.strip() == METHOD)


def mixture_keys(item: Item, remarks: Remarks) -> Mapping[str, Item]:
    """Returns the entries of a mixture's recipe; those of other forms are refused, or warned about where harmless."""
    found = dict(mapping(item))
    stated = found.pop("merge_method", None)
    if stated is not None and text(stated) != METHOD:
        raise fault(stated, f"experts belong to merge_method: {METHOD}, not to {text(stated)}")
    for key in _FORM_KEYS:
        if key in found:
            raise fault(found[key], "a mixture of experts takes experts, and nothing else says what goes into it")
    for key in _UNUSED_KEYS:
        if key in found:
            remarks.warn(found.pop(key), "has no effect in a mixture of experts")
    kept = item.with_entries(found)
    return check_keys(kept, (*MIXTURE_KEYS, *(key for key in RECIPE_KEYS if key not in _FORM_KEYS)), remarks)


def read_mixture(item: Item, found: Mapping[str, Item], source: ReadSource, remarks: Remarks) -> Mixture:
    """Returns what a recipe says of its experts and their router."""
    for key in ("base_model", "experts"):
        if key not in found:
            raise fault(item, f"a mixture of experts needs its {key}")
    mode = _gate_mode(found.get("gate_mode"))
    experts, shared = (
        tuple(_expert(entry, mode, source, remarks) for entry in entries(found[key])) if key in found else ()
        for key in ("experts", "shared_experts")
    )
    return Mixture(
        gate_mode=mode,
        experts=experts,
        shared_experts=shared,
        experts_per_token=_at_least_one(found["experts_per_token"]) if "experts_per_token" in found else 2,
        architecture=text(found["architecture"]) if "architecture" in found else None,
    )


def _gate_mode(item: Item | None) -> str:
    mode = "hidden" if item is None else text(item)
    if item is not None and mode not in GATE_MODES:
        raise fault(item, f"must be one of {', '.join(GATE_MODES)}, not {mode}{did_you_mean(mode, GATE_MODES)}")
    return mode


def _expert(item: Item, mode: str, source: ReadSource, remarks: Remarks) -> Expert:
    found = check_keys(item, EXPERT_KEYS, remarks)
    if "source_model" not in found:
        raise fault(item, "an expert needs its source_model")
    positive, negative = (_prompts(found.get(key)) for key in ("positive_prompts", "negative_prompts"))
    if (positive or negative) and mode not in PROMPTED_MODES:
        remarks.warn(item, f"its prompts have no effect where gate_mode is {mode}")
    return Expert(
        model=source(found["source_model"]),
        positive_prompts=positive,
        negative_prompts=negative,
        noise_scale=_not_negative(found["noise_scale"]) if "noise_scale" in found else 0.0,
        residual_scale=float(number(found["residual_scale"])) if "residual_scale" in found else 1.0,
        where=item.where,
    )


def _prompts(item: Item | None) -> tuple[str, ...]:
    """Returns the prompts to the letter: white space is part of what a tokenizer sees."""
    if item is None or item.value == ():
        return ()
    for entry in entries(item):
        text(entry)
    return tuple(entry.text for entry in entries(item))


def _at_least_one(item: Item) -> int:
    if (value := whole_number(item)) < 1:
        raise fault(item, f"must be at least 1, not {value}")
    return value


def _not_negative(item: Item) -> float:
    if (value := float(number(item))) < 0:
        raise fault(item, f"must not be negative, and is {value:g}")
    return value
