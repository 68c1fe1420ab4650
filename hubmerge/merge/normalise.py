"""A recipe written out in full: every parent at its commit, every default stated, in the field's own language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from hubmerge.merge.methods import get_method
from hubmerge.merge.plan import Plan
from hubmerge.merge.recipe import (
    Expert,
    Mixture,
    ModelToken,
    Recipe,
    Slice,
    SliceSource,
    Source,
    TokenChoice,
    TokenizerChoice,
    ZeroToken,
)
from hubmerge.merge.settings import Constant, Filtered, Gradient, Setting
from hubmerge.weights.reference import ModelRef


@dataclass(frozen=True)
class _Known:
    """What is known while a recipe is written.

    Attributes:
        commits: By model or adapter alone.
        written: Recipes that stand in a model's place, by their `id()`.
    """

    commits: Mapping[ModelRef, str | None]
    written: dict[int, dict[str, Any]] = field(default_factory=dict)


def normalised_recipe(plan: Plan) -> str:
    """Returns YAML that makes the same merge even after the parents have moved on."""
    return pinned_recipe(plan.recipe, {parent.ref: parent.sha for parent in plan.parents})


def pinned_recipe(recipe: Recipe, commits: Mapping[ModelRef, str | None]) -> str:
    """Returns a recipe as YAML, every default stated and every model at its commit.

    Args:
        recipe: What is merged.
        commits: By model or adapter alone; those that have none keep the revision that the recipe names.
    """
    return yaml.safe_dump(_recipe(recipe, _Known(commits)), sort_keys=False, allow_unicode=True, width=120)


def _recipe(recipe: Recipe, known: _Known) -> dict[str, Any]:
    whole = recipe.whole_models
    if recipe.mixture is not None:
        return _mixture(recipe, recipe.mixture, known)
    content = {
        "merge_method": recipe.method,
        "base_model": None if recipe.base_model is None else _source(recipe.base_model, known),
        "models": [_entry(source, known) for source in recipe.slices[0].sources] if whole else None,
        "slices": None if whole else [_slice(slice_, known) for slice_ in recipe.slices],
        "modules": {name: _module(module, known) for name, module in (recipe.modules or {}).items()},
        "parameters": None if recipe.modules else _with_defaults(recipe),
        "tokenizer": None if recipe.tokenizer is None else _tokenizer(recipe.tokenizer, known),
        "chat_template": recipe.chat_template,
        "dtype": recipe.dtype,
        "out_dtype": recipe.out_dtype,
        "lora": None if recipe.lora is None else _source(recipe.lora, known),
        "rounding": None if recipe.rounding == "nearest" else recipe.rounding,
        "seed": recipe.seed,
    }
    return {key: value for key, value in content.items() if value is not None and value not in ({}, [])}


def _module(recipe: Recipe, known: _Known) -> dict[str, Any]:
    return {key: value for key, value in _recipe(recipe, known).items() if key != "seed"}


def _mixture(recipe: Recipe, mixture: Mixture, known: _Known) -> dict[str, Any]:
    content = {
        "merge_method": recipe.method,
        "base_model": None if recipe.base_model is None else _source(recipe.base_model, known),
        "gate_mode": mixture.gate_mode,
        "experts_per_token": mixture.experts_per_token,
        "experts": [_expert(expert, known) for expert in mixture.experts],
        "shared_experts": [_expert(expert, known) for expert in mixture.shared_experts] or None,
        "architecture": mixture.architecture,
        "chat_template": recipe.chat_template,
        "dtype": recipe.dtype,
        "out_dtype": recipe.out_dtype,
        "seed": recipe.seed,
    }
    return {key: value for key, value in content.items() if value is not None}


def _expert(expert: Expert, known: _Known) -> dict[str, Any]:
    prompts = {"positive_prompts": list(expert.positive_prompts), "negative_prompts": list(expert.negative_prompts)}
    return {
        "source_model": _source(expert.model, known),
        **{key: texts for key, texts in prompts.items() if texts},
        "noise_scale": expert.noise_scale,
        "residual_scale": expert.residual_scale,
    }


def _slice(slice_: Slice, known: _Known) -> dict[str, Any]:
    content: dict[str, Any] = {"sources": [_entry(source, known) for source in slice_.sources]}
    if slice_.base_model is not None:
        content["base_model"] = _source(slice_.base_model, known)
    if slice_.parameters:
        content["parameters"] = {name: _setting(setting) for name, setting in slice_.parameters.items()}
    return content


def _entry(source: SliceSource, known: _Known) -> dict[str, Any]:
    content: dict[str, Any] = {"model": _source(source.model, known)}
    if source.layer_range is not None:
        content["layer_range"] = list(source.layer_range)
    if source.parameters:
        content["parameters"] = {name: _setting(setting) for name, setting in source.parameters.items()}
    return content


def _tokenizer(choice: TokenizerChoice, known: _Known) -> dict[str, Any]:
    source = choice.source if isinstance(choice.source, str) else _source(choice.source, known)
    tokens = {token: _token(entry, known) for token, entry in choice.tokens.items()}
    content = {"source": source, "tokens": tokens, "pad_to_multiple_of": choice.pad_to_multiple_of}
    return {key: value for key, value in content.items() if value is not None and value != {}}


def _token(choice: TokenChoice, known: _Known) -> dict[str, Any]:
    force = {"force": True} if choice.force else {}
    match choice.source:
        case None:
            return force
        case ZeroToken():
            return {"source": {"kind": "zero"}, **force}
        case ModelToken(model=model, token=token, token_id=token_id):
            row = {"token": token} if token is not None else {"token_id": token_id}
            return {"source": {"kind": "model_token", "model": _source(model, known), **row}, **force}
        case source:
            return {"source": _source(source, known), **force}


def _source(source: Source, known: _Known) -> Any:
    """Returns a model's name, or a recipe's content: always the same object, which YAML writes once."""
    if isinstance(source, ModelRef):
        return str(_pinned(source, known.commits))
    if id(source) not in known.written:
        known.written[id(source)] = _recipe(source, known)
    return known.written[id(source)]


def _pinned(ref: ModelRef, commits: Mapping[ModelRef, str | None]) -> ModelRef:
    alone = ref.without_adapter
    adapter = None if ref.adapter is None else _pinned(ref.adapter, commits)
    return replace(alone, revision=commits.get(alone) or alone.revision, adapter=adapter)


def _with_defaults(recipe: Recipe) -> dict[str, Any]:
    stated = {name: _setting(setting) for name, setting in recipe.parameters.items()}
    parameters = get_method(recipe.method).parameters
    return {**{p.name: p.default for p in parameters if p.default is not None}, **stated}


def _setting(setting: Setting) -> Any:
    match setting:
        case Constant(value):
            return value
        case Gradient(values):
            return list(values)
        case Filtered(cases):
            return [
                {**({"filter": case.substring} if case.substring else {}), "value": _setting(case.setting)}
                for case in cases
            ]
