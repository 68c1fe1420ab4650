"""Tiny checkpoints in the place of the models that a published recipe names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hubmerge.merge.plan import model_refs
from hubmerge.merge.recipe import Recipe, Slice, SliceSource, Source
from hubmerge.weights.reference import ModelRef
from tests.checkpoints import numbered_tokens, write_tensors, write_tokenizer

VOCAB = 20
HIDDEN = 8
MLP = 12
LAYERS = 4
"""Of a model whose recipe does not say how many it has."""
DEEP = 8
"""More layers than this have fewer tensors each, or all samples together take a minute."""

Shape = tuple[int, ...]

LLAMA_LAYER: dict[str, Shape] = {
    "input_layernorm.weight": (HIDDEN,),
    "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
    "self_attn.k_proj.weight": (HIDDEN // 2, HIDDEN),
    "self_attn.v_proj.weight": (HIDDEN // 2, HIDDEN),
    "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
    "post_attention_layernorm.weight": (HIDDEN,),
    "mlp.gate_proj.weight": (MLP, HIDDEN),
    "mlp.up_proj.weight": (MLP, HIDDEN),
    "mlp.down_proj.weight": (HIDDEN, MLP),
}
GPT2_LAYER: dict[str, Shape] = {
    "ln_1.weight": (HIDDEN,),
    "attn.c_attn.weight": (HIDDEN, 3 * HIDDEN),
    "attn.c_proj.weight": (HIDDEN, HIDDEN),
    "ln_2.weight": (HIDDEN,),
    "mlp.c_fc.weight": (HIDDEN, MLP),
    "mlp.c_proj.weight": (MLP, HIDDEN),
}


def shapes(architecture: str, *, layers: int, vocab: int) -> dict[str, Shape]:
    """Returns a model's tensors: Llama's (also Mistral's), Qwen2's with biases and without a head, or GPT-2's."""
    if architecture == "gpt2":
        outer = {"wte.weight": (vocab, HIDDEN), "wpe.weight": (16, HIDDEN), "ln_f.weight": (HIDDEN,)}
        return _named("transformer.h.", GPT2_LAYER, layers) | {f"transformer.{k}": v for k, v in outer.items()}
    layer = dict(LLAMA_LAYER)
    if layers > DEEP:
        layer = {part: shape for part, shape in layer.items() if part.startswith(("input", "self_attn.q", "mlp.down"))}
    if architecture == "qwen":
        layer["self_attn.q_proj.bias"] = (HIDDEN,)
    outer = {"model.embed_tokens.weight": (vocab, HIDDEN), "model.norm.weight": (HIDDEN,)}
    head = {} if architecture == "qwen" else {"lm_head.weight": (vocab, HIDDEN)}
    return outer | head | _named("model.layers.", layer, layers)


class StandIns:
    """Writes stand-ins, one for each shape and number, and gives them to all recipes that need one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, recipe: Recipe) -> tuple[Recipe, dict[ModelRef, ModelRef]]:
        """Returns the recipe over stand-ins, and which stands for which of its models."""
        layers, architecture = layers_of(recipe), _architecture(recipe)
        found: dict[ModelRef, ModelRef] = {}
        for number, ref in enumerate(model_refs(recipe)):
            # Vocabularies of different sizes, where the recipe brings them to one.
            vocab = VOCAB + 2 * (number % 2 if any_tokenizer(recipe) else 0)
            folder = self._model(architecture, layers, vocab, number)
            adapter = None if ref.adapter is None else ModelRef(str(self._adapter(layers)))
            found[ref] = ModelRef(str(folder), None, adapter)
        return _Replaced(found.__getitem__).recipe(recipe), found

    def _model(self, architecture: str, layers: int, vocab: int, number: int) -> Path:
        folder = self._folder / f"{architecture}-{layers}-{vocab}-{number}"
        if not folder.is_dir():
            generator = torch.Generator().manual_seed(number)
            tensors = {
                name: torch.randn(shape, generator=generator)
                for name, shape in shapes(architecture, layers=layers, vocab=vocab).items()
            }
            key = "n_layer" if architecture == "gpt2" else "num_hidden_layers"
            config = {"model_type": architecture, key: layers, "vocab_size": vocab}
            tied = {"tie_word_embeddings": architecture != "llama"}
            write_tensors(folder, tensors, config | tied)
            write_tokenizer(folder, numbered_tokens(vocab))
        return folder

    def _adapter(self, layers: int) -> Path:
        folder = self._folder / f"adapter-{layers}"
        if not folder.is_dir():
            folder.mkdir(parents=True)
            config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
            (folder / "adapter_config.json").write_text(json.dumps(config))
            path = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
            halves = {"A": torch.ones(2, HIDDEN), "B": torch.ones(HIDDEN, 2)}
            tensors = {path.format(i, half): value.clone() for i in range(layers) for half, value in halves.items()}
            save_file(tensors, folder / "adapter_model.safetensors")
        return folder


def recipes_in(recipe: Recipe) -> Iterable[Recipe]:
    """Yields a recipe and those nested in it."""
    yield recipe
    sources = [source.model for slice_ in recipe.slices for source in slice_.sources]
    for source in (*sources, recipe.base_model):
        if isinstance(source, Recipe):
            yield from recipes_in(source)


def any_tokenizer(recipe: Recipe) -> bool:
    """Returns whether vocabularies are brought to one somewhere in a tree."""
    return any(each.tokenizer is not None for each in recipes_in(recipe))


def _named(prefix: str, layer: dict[str, Shape], layers: int) -> dict[str, Shape]:
    return {f"{prefix}{index}.{part}": shape for index in range(layers) for part, shape in layer.items()}


def layers_of(recipe: Recipe) -> int:
    """Returns how many layers each of the models has."""
    slices = [slice_ for each in recipes_in(recipe) for slice_ in each.slices]
    return max((s.layer_range[1] for slice_ in slices for s in slice_.sources if s.layer_range), default=LAYERS)


def _architecture(recipe: Recipe) -> str:
    names = " ".join(ref.path.lower() for ref in model_refs(recipe))
    return next((architecture for architecture in ("gpt2", "qwen") if architecture in names), "llama")


class _Replaced:
    """Puts other checkpoints into a recipe; a recipe that is used twice stays one object."""

    def __init__(self, other: Callable[[ModelRef], ModelRef]) -> None:
        self._other = other
        self._done: dict[int, Recipe] = {}

    def recipe(self, recipe: Recipe) -> Recipe:
        if id(recipe) not in self._done:
            changes: dict[str, Any] = {
                "slices": tuple(map(self._slice, recipe.slices)),
                "base_model": self._source(recipe.base_model),
            }
            choice = recipe.tokenizer
            if choice is not None and not isinstance(choice.source, str):
                changes["tokenizer"] = replace(choice, source=self._source(choice.source))
            self._done[id(recipe)] = replace(recipe, **changes)
        return self._done[id(recipe)]

    def _slice(self, slice_: Slice) -> Slice:
        sources = tuple(map(self._input, slice_.sources))
        return replace(slice_, sources=sources, base_model=self._source(slice_.base_model))

    def _input(self, source: SliceSource) -> SliceSource:
        return replace(source, model=self._source(source.model))

    def _source(self, source: Source | None) -> Any:
        if isinstance(source, ModelRef):
            return self._other(source)
        return None if source is None else self.recipe(source)
