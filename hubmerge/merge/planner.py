"""Recipes to models that can be made: a recipe and those that stand in the place of its models, each planned once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hubmerge.merge.adapted import with_adapter
from hubmerge.merge.assemble import MadeModule, assemble, in_fp64
from hubmerge.merge.chat_template import with_chat_template
from hubmerge.merge.findings import Findings
from hubmerge.merge.moe.assemble import assemble_mixture
from hubmerge.merge.moe.check import check_mixture
from hubmerge.merge.naming import named_like
from hubmerge.merge.planned import PlannedModel, PlannedTensor, planned_model
from hubmerge.merge.recipe import Recipe, Source
from hubmerge.merge.result_config import result_config, uncounted
from hubmerge.merge.slots import ModelOf
from hubmerge.merge.vocabularies import TokenizerOf, align_models, distinct, torn_vocabulary
from hubmerge.weights.checkpoint import Checkpoint
from hubmerge.weights.reference import ModelRef


class Planner:
    """Plans a recipe and those nested in it, each once."""

    def __init__(
        self,
        stored: Mapping[ModelRef, PlannedModel],
        tokenizer_of: TokenizerOf,
        findings: Findings,
        adapters: Mapping[ModelRef, tuple[int, Checkpoint]],
    ) -> None:
        self._stored = stored
        self._adapters = adapters
        self._tokenizer_of = tokenizer_of
        self._merged: dict[int, PlannedModel] = {}
        self._findings = findings

    def plan(self, recipe: Recipe) -> tuple[PlannedModel, tuple[MadeModule, ...]]:
        """Returns the recipe's result as a model, and what becomes of each module of its donor."""
        if recipe.mixture is not None:
            return self._mixture(recipe)
        aligned = self._align(recipe)
        modules, tensors = assemble(recipe, aligned, self._findings)
        donor = aligned(recipe.donor)
        label = recipe.name or f"the {recipe.method} merge"
        tensors = self._with_lora(recipe, label, donor, tensors)
        config = result_config(donor, tensors=tensors, modules=modules)
        tokenizer = with_chat_template(donor.tokenizer, recipe.chat_template, self._inputs(recipe), self._tokenizer_of)
        model = planned_model(label, donor=donor.donor, config=config, tensors=tensors, tokenizer=tokenizer)
        if problem := torn_vocabulary(model, donor):
            self._findings.problem(*problem)
        for name in uncounted(donor, modules):
            self._findings.problem(
                name, f"gets another number of layers, which config.json of {donor.label} cannot say"
            )
        return model, modules

    def _with_lora(
        self, recipe: Recipe, label: str, donor: PlannedModel, tensors: dict[str, PlannedTensor]
    ) -> dict[str, PlannedTensor]:
        if recipe.lora is None:
            return tensors
        number, adapter = self._adapters[recipe.lora]
        bare = planned_model(label, donor=donor.donor, config=donor.config, tensors=tensors, tokenizer=donor.tokenizer)
        adapted = with_adapter(bare, adapter, parent=number, findings=self._findings).tensors
        if not recipe.is_double:
            return dict(adapted)
        return {name: replace(tensor, expr=in_fp64(tensor.expr)) for name, tensor in adapted.items()}

    def _mixture(self, recipe: Recipe) -> tuple[PlannedModel, tuple[MadeModule, ...]]:
        """Returns the mixture of experts that a recipe makes; without tensors where nothing can be made."""
        assert recipe.base_model is not None, "the reader asks for it"
        base = self._model_of(recipe.base_model)
        target = check_mixture(recipe, base, self._model_of, self._tokenizer_of, self._findings)
        if target is None or base.layers is None:
            return base, ()
        made = assemble_mixture(recipe, target, base, self._model_of, self._findings)
        tokenizer = with_chat_template(base.tokenizer, recipe.chat_template, self._inputs(recipe), self._tokenizer_of)
        label = recipe.name or "the mixture"
        model = planned_model(label, donor=base.donor, config=made.config, tensors=made.tensors, tokenizer=tokenizer)
        return model, tuple(
            MadeModule(module, recipe.method, tuple(range(module.layer_count)), len(module.names))
            for module in model.modules
        )

    def _align(self, recipe: Recipe) -> ModelOf:
        """Returns what gives the recipe's models, all with one naming and one vocabulary."""
        named = self._named(recipe)
        aligned = align_models(recipe, named, self._tokenizer_of)
        for note in aligned.notes:
            self._findings.note("vocabulary", note)
        for where, problem in aligned.problems:
            self._findings.problem(where, problem)
        self._findings.hint = self._findings.hint or aligned.hint
        return lambda source: aligned.models.get(id(named(source)), named(source))

    def _named(self, recipe: Recipe) -> ModelOf:
        """Returns what gives the recipe's models, their tensors named as the donor's."""
        donor = self._model_of(recipe.donor)
        named: dict[int, PlannedModel] = {id(donor): donor}

        def model_of(source: Source) -> PlannedModel:
            model = self._model_of(source)
            if id(model) not in named:
                named[id(model)], notes = named_like(model, donor)
                for note in notes:
                    self._findings.note("names", note)
            return named[id(model)]

        return model_of

    def _inputs(self, recipe: Recipe) -> list[PlannedModel]:
        return distinct(self._model_of(source) for source in recipe.sources)

    def _model_of(self, source: Source) -> PlannedModel:
        if isinstance(source, ModelRef):
            return self._stored[source]
        if id(source) not in self._merged:
            self._merged[id(source)], _ = self.plan(source)
        return self._merged[id(source)]
