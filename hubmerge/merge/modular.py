"""Which recipe makes which module of the result.

A recipe without `modules` makes all of them: its slices count the layers of the language model, and each other module
is merged as a whole from the first slice's models. Modules that no recipe makes are the donor's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hubmerge.errors import RecipeError
from hubmerge.merge.findings import Findings
from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.method import Base
from hubmerge.merge.modules import Module, counterpart, modules_called
from hubmerge.merge.planned import PlannedModel
from hubmerge.merge.recipe import Recipe
from hubmerge.merge.slots import ModelOf


def module_recipes(
    recipe: Recipe, donor: PlannedModel, model_of: ModelOf, findings: Findings
) -> Iterator[tuple[Module, Recipe | None]]:
    """Yields every module of the donor with the recipe that makes it, or with None if it is carried over.

    Raises:
        RecipeError: The recipe names a module that the donor does not have.
    """
    stated = None if recipe.modules is None else _stated(recipe.modules, donor)
    for module in donor.modules:
        if stated is None:
            yield module, _implied(recipe, module, donor, model_of, findings)
        else:
            if module.name not in stated:
                _note_carried(module, donor, "the recipe names other modules", findings)
            yield module, stated.get(module.name)
    _note_left_out(recipe, donor, model_of, findings)


def _stated(modules: Mapping[str, Recipe], donor: PlannedModel) -> dict[str, Recipe]:
    """Returns the recipes of modules by the names that the modules have."""
    stated: dict[str, Recipe] = {}
    for name, part in modules.items():
        found = modules_called(donor.modules, name)
        if not found:
            listing = ", ".join(map(str, donor.modules))
            raise RecipeError(f"{part.where}: {donor.label} has no module {name}; it has {listing}")
        for module in found:
            if module.name in stated:
                raise RecipeError(f"{part.where}: another entry is about the module {module.name} already")
            stated[module.name] = part if module.layers or len(found) == 1 else _whole(part)
    return stated


def _implied(
    recipe: Recipe, module: Module, donor: PlannedModel, model_of: ModelOf, findings: Findings
) -> Recipe | None:
    """Returns what a recipe for whole models makes of one module."""
    if module.is_main:
        return recipe
    models = _inputs(recipe, model_of)
    lacking = [model.label for model in models if counterpart(model.modules, module) is None]
    if not lacking:
        return _whole(recipe)
    holders = [m.label for m in models if m.label not in lacking and m is not donor]
    if holders:
        findings.problem(
            module.name,
            f"{', '.join(holders)} has this module, {', '.join(lacking)} not; say under modules what it is made of",
        )
    else:
        _note_carried(module, donor, f"{', '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} none", findings)
    return None


def _whole(recipe: Recipe) -> Recipe:
    """Returns the recipe with its first slice alone, of all layers."""
    first = recipe.slices[0]
    sources = tuple(replace(source, layer_range=None) for source in first.sources)
    return replace(recipe, slices=(replace(first, sources=sources),))


def _inputs(recipe: Recipe, model_of: ModelOf) -> Sequence[PlannedModel]:
    """Returns the models that the first slice merges, its base included if that is one of them."""
    first = recipe.slices[0]
    base = first.base_model or recipe.base_model
    sources = [source.model for source in first.sources]
    if base is not None and get_method(recipe.method).base is not Base.DONOR:
        sources.insert(0, base)
    return list({id(model): model for model in map(model_of, sources)}.values())


def _note_carried(module: Module, donor: PlannedModel, reason: str, findings: Findings) -> None:
    findings.note(str(module), f"carried over from {donor.label}: {reason}")


def _note_left_out(recipe: Recipe, donor: PlannedModel, model_of: ModelOf, findings: Findings) -> None:
    """Says which modules of the other models have no place in the result."""
    for model in {id(model): model for model in map(model_of, recipe.sources)}.values():
        for module in model.modules:
            if counterpart(donor.modules, module) is None:
                sentence = f"left out: {donor.label}, which gives the result its shape, lacks what {model.label} has"
                findings.note(str(module), sentence)
