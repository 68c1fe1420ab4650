"""A mixture's recipe and its models to planned tensors: experts under their new names, routers, the base's rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hubmerge.merge.assemble import DERIVED_SUFFIXES
from hubmerge.merge.expr import Expr, Gate, Merge, Random, Routing
from hubmerge.merge.findings import Findings
from hubmerge.merge.layers import comes_before_layers, role
from hubmerge.merge.methods.method import Settings
from hubmerge.merge.modules import Module
from hubmerge.merge.moe.target import (
    EXPERT_PARTS,
    RESIDUAL_PART,
    SHARED_GATE_NAME,
    SHARED_NAMES,
    Target,
    mixture_config,
)
from hubmerge.merge.planned import PlannedModel, PlannedTensor, is_head
from hubmerge.merge.recipe import PROMPTED_MODES, Expert, Mixture, Recipe, Source
from hubmerge.merge.result_config import main_dtype
from hubmerge.weights.dtypes import FLOAT_CODES, is_float


@dataclass(frozen=True)
class AssembledMixture:
    """What a mixture consists of, in the order in which it is best made."""

    tensors: Mapping[str, PlannedTensor]
    config: dict[str, Any]


def assemble_mixture(
    recipe: Recipe, target: Target, base: PlannedModel, model_of: Callable[[Source], PlannedModel], findings: Findings
) -> AssembledMixture:
    """Returns tensors and config.json of a mixture; what does not fit is recorded and left out."""
    assert recipe.mixture is not None, "a recipe of another form"
    made = _Assembly(recipe, recipe.mixture, target, base, model_of, findings)
    tensors = {tensor.name: tensor for tensor in made.tensors()}
    return AssembledMixture(tensors, made.config(tensors))


@dataclass(frozen=True)
class _Assembly:
    """One mixture in the making."""

    recipe: Recipe
    mixture: Mixture
    target: Target
    base: PlannedModel
    model_of: Callable[[Source], PlannedModel]
    findings: Findings

    def tensors(self) -> Iterator[PlannedTensor]:
        """Yields the routers of all layers right after the embedding: what they cost is then paid once, at first."""
        yield from self._outer(before=True)
        yield from self._routers()
        for layer in range(self._decoder.layer_count):
            yield from self._dense(layer)
            for number, expert in enumerate(self.mixture.experts):
                yield from self._expert(expert, layer, [name.format(number) for name in self.target.expert_names])
            for expert in self.mixture.shared_experts:
                yield from self._expert(expert, layer, SHARED_NAMES)
        yield from self._outer(before=False)

    def config(self, tensors: Mapping[str, PlannedTensor]) -> dict[str, Any]:
        """Returns config.json."""
        gate_projection = self.base.find(self._decoder.name_in_layer(0, EXPERT_PARTS[0]))
        config = mixture_config(
            self.base.config,
            self.target,
            self.mixture,
            intermediate=gate_projection.shape[0] if gate_projection else 0,
            dtype=self._dtype,
            has_bias=any(name.endswith("q_proj.bias") for name in tensors),
        )
        if self.base.ties_embeddings and any(is_head(name, self.base.layers) for name in tensors):
            config["tie_word_embeddings"] = False
        return config

    @property
    def _decoder(self) -> Module:
        assert self.base.main is not None, "its layers were found"
        return self.base.main

    @property
    def _dtype(self) -> str:
        stated = self.recipe.out_dtype or self.recipe.dtype
        return FLOAT_CODES[stated] if stated else main_dtype(self.base.tensors)

    def _outer(self, *, before: bool) -> Iterator[PlannedTensor]:
        for name in self._decoder.parts_by_layer.get(None, ()):
            if comes_before_layers(name, self.base.layers) is before:
                yield from self._from_base(name, is_known=role(name, self.base.layers) in ("embed", "norm", "head"))

    def _dense(self, layer: int) -> Iterator[PlannedTensor]:
        for part in self._decoder.parts_by_layer.get(layer, ()):
            if part not in EXPERT_PARTS:
                name = self._decoder.name_in_layer(layer, part)
                yield from self._from_base(name, is_known=part in self.target.dense_parts)

    def _from_base(self, name: str, *, is_known: bool) -> Iterator[PlannedTensor]:
        tensor = self.base.tensors[name]
        if is_known and is_float(tensor.dtype):
            yield PlannedTensor(name, self._dtype, tensor.shape, tensor.expr)
        elif name.endswith(DERIVED_SUFFIXES):
            self.findings.note(name, f"left out: {self.target.architecture} computes it anew")
        else:
            self.findings.problem(name, f"{self.base.label} has it, and {self.target.architecture} does not")

    def _expert(self, expert: Expert, layer: int, names: Iterable[str]) -> Iterator[PlannedTensor]:
        model = self.model_of(expert.model)
        for part, new in zip(EXPERT_PARTS, names, strict=True):
            own = self.base.find(self._decoder.name_in_layer(layer, part))
            found = _in_layer(model, layer, part)
            name = self._decoder.name_in_layer(layer, new)
            if self._fits(self._decoder.name_in_layer(layer, part), found, own, model.label) and found:
                factor = expert.residual_scale if part == RESIDUAL_PART else 1.0
                expr = _scaled(found, name, self.recipe, noise=expert.noise_scale, factor=factor)
                yield PlannedTensor(name, self._dtype, found.shape, expr)

    def _fits(self, name: str, found: PlannedTensor | None, own: PlannedTensor | None, label: str) -> bool:
        if found is None or own is None:
            self.findings.problem(name, f"missing in {label if found is None else self.base.label}")
            return False
        if found.shape != own.shape:
            sizes = f"{_shape_text(own)} in {self.base.label}, {_shape_text(found)} in {label}"
            self.findings.problem(name, f"shapes differ: {sizes}")
            return False
        if not is_float(found.dtype):
            self.findings.problem(name, f"dtype {found.dtype} in {label} cannot become an expert")
            return False
        return True

    def _routers(self) -> Iterator[PlannedTensor]:
        embedding = next((t for t in self.base.tensors.values() if role(t.name, self.base.layers) == "embed"), None)
        if embedding is None:
            self.findings.problem("embedding", f"missing in {self.base.label}")
            return
        routed, count = len(self.mixture.experts), len(self.mixture.all_experts)
        hidden = embedding.shape[1]
        routing = self._routing(embedding) if self.mixture.gate_mode in PROMPTED_MODES else None
        for layer in range(self._decoder.layer_count):
            for part, first, stop in ((self.target.gate_name, 0, routed), (SHARED_GATE_NAME, routed, count)):
                if first < stop:
                    name, shape = self._decoder.name_in_layer(layer, part), (stop - first, hidden)
                    expr = Gate(routing, layer, first, stop) if routing else self._random(name, shape)
                    yield PlannedTensor(name, self._dtype, shape, expr)

    def _random(self, name: str, shape: tuple[int, int]) -> Random:
        if self.mixture.gate_mode == "random":
            return Random(name, shape, self.recipe.seed, "normal")
        return Random(name, shape, self.recipe.seed, "uniform", scale=1 / math.sqrt(shape[1]))

    def _routing(self, embedding: PlannedTensor) -> Routing:
        mode = self.mixture.gate_mode
        is_run = mode != "cheap_embed"
        layers = [self._layer(layer) for layer in range(self._decoder.layer_count - 1)] if is_run else []
        return Routing(
            mode="hidden_last" if mode == "hidden" else mode,
            prompts=tuple((expert.positive_prompts, expert.negative_prompts) for expert in self.mixture.all_experts),
            embedding=embedding.expr,
            layers=tuple({part: tensor.expr for part, tensor in layer.items()} for layer in layers),
            layer_elements=max((sum(t.elements for t in layer.values()) for layer in layers), default=0),
            config=self.base.config,
        )

    def _layer(self, layer: int) -> dict[str, PlannedTensor]:
        parts = self._decoder.parts_by_layer.get(layer, ())
        named = {part: self.base.tensors[self._decoder.name_in_layer(layer, part)] for part in parts}
        return {part: tensor for part, tensor in named.items() if not part.endswith(DERIVED_SUFFIXES)}


def _in_layer(model: PlannedModel, layer: int, part: str) -> PlannedTensor | None:
    main = model.main
    return model.find(main.name_in_layer(layer, part)) if main and layer < main.layer_count else None


def _scaled(tensor: PlannedTensor, name: str, recipe: Recipe, *, noise: float, factor: float) -> Expr:
    """Returns factor·(W + noise·N(0, 1)); W itself where neither is asked for."""
    if noise == 0 and factor == 1:
        return tensor.expr
    terms: list[tuple[Expr, float]] = [(tensor.expr, factor)]
    if noise:
        terms.append((Random(name, tensor.shape, recipe.seed, "normal"), factor * noise))
    settings = Settings(shared={"normalize": False}, inputs=tuple({"weight": weight} for _, weight in terms))
    inputs = tuple(expr for expr, _ in terms)
    return Merge(
        "linear", name, inputs, has_base=False, settings=settings, seed=recipe.seed, is_double=recipe.is_double
    )


def _shape_text(tensor: PlannedTensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
