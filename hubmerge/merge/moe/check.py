"""What is wrong with a mixture, or worth knowing, before any of its tensors is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from hubmerge.merge.findings import Findings
from hubmerge.merge.moe.target import Target, find_target
from hubmerge.merge.planned import PlannedModel
from hubmerge.merge.recipe import PROMPTED_MODES, Mixture, Recipe, Source
from hubmerge.merge.vocabularies import TokenizerOf

NEEDED_PACKAGES = ("transformers", "accelerate")

ModelOf = Callable[[Source], PlannedModel]


def check_mixture(
    recipe: Recipe, base: PlannedModel, model_of: ModelOf, tokenizer_of: TokenizerOf, findings: Findings
) -> Target | None:
    """Returns the architecture of a mixture, or None; everything that stands against it is recorded."""
    assert recipe.mixture is not None, "a recipe of another form"
    mixture = recipe.mixture
    _check_counts(mixture, recipe.where, findings)
    if mixture.gate_mode in PROMPTED_MODES:
        _check_prompts(mixture, recipe.where, findings)
        _check_packages(mixture, findings)
    _check_models(mixture, base, model_of, findings)
    _note_tokenizers(mixture, base, model_of, tokenizer_of, findings)
    target = find_target(str(base.config.get("model_type")), mixture)
    if isinstance(target, str):
        findings.problem(recipe.where, target)
        return None
    window = base.config.get("sliding_window") if base.config.get("use_sliding_window", True) else None
    if window and "sliding_window" in target.settings:
        findings.note("config.json", f"attention is no longer cut off at sliding_window {window}, as in {base.label}")
    return target


def _check_counts(mixture: Mixture, where: str, findings: Findings) -> None:
    count, wanted = len(mixture.experts), mixture.experts_per_token
    if wanted > count:
        findings.problem(where, f"experts_per_token is {wanted}, and there are {count} experts")
    if count & (count - 1):
        findings.note(where, f"{count} experts are no power of two, which llama.cpp cannot run")


def _check_prompts(mixture: Mixture, where: str, findings: Findings) -> None:
    for expert in mixture.all_experts:
        if not expert.positive_prompts:
            findings.problem(expert.where, f"gate_mode {mixture.gate_mode} needs its positive_prompts")
    prompts = [(expert.positive_prompts, expert.negative_prompts) for expert in mixture.experts]
    if len(prompts) > 1 and prompts[0][0] and len(set(prompts)) == 1:
        findings.problem(where, "all experts have the same prompts, so a router from them could not tell them apart")


def _check_packages(mixture: Mixture, findings: Findings) -> None:
    if any(find_spec(name) is None for name in NEEDED_PACKAGES):
        findings.problem(f"gate_mode {mixture.gate_mode}", "needs transformers, which is not installed")
        findings.hint = "pip install 'hubmerge[transformers]', or write gate_mode: random."


def _check_models(mixture: Mixture, base: PlannedModel, model_of: ModelOf, findings: Findings) -> None:
    if base.layers is None:
        findings.problem(base.label, "its tensors show no layers")
    for expert in mixture.all_experts:
        model = model_of(expert.model)
        kinds = [str(each.config.get("model_type")) for each in (base, model)]
        if kinds[0] != kinds[1]:
            findings.problem(expert.where, f"{model.label} is a {kinds[1]} model, and the base is a {kinds[0]} model")
        elif model.layer_count != base.layer_count:
            counts = f"{model.layer_count} layers, and the base has {base.layer_count}"
            findings.problem(expert.where, f"{model.label} has {counts}")
    if len(mixture.experts) > 1 and len({id(model_of(expert.model)) for expert in mixture.experts}) == 1:
        noise = any(expert.noise_scale for expert in mixture.experts)
        sentence = "all experts are the same model, so nothing is gained until the result is trained"
        findings.note("experts", sentence if not noise else f"{sentence}; noise makes them differ")


def _note_tokenizers(
    mixture: Mixture, base: PlannedModel, model_of: ModelOf, tokenizer_of: TokenizerOf, findings: Findings
) -> None:
    own = tokenizer_of(base)
    others = _distinct([model_of(expert.model) for expert in mixture.all_experts], base)
    for model in others:
        theirs = tokenizer_of(model)
        if own is not None and theirs is not None and theirs.digest != own.digest:
            findings.note(model.label, f"its tokenizer is not that of {base.label}, by whose ids it will be run")


def _distinct(models: Sequence[PlannedModel], base: PlannedModel) -> list[PlannedModel]:
    return [model for key, model in {id(model): model for model in models}.items() if key != id(base)]
