"""The modules of a model: parts with a depth of their own, such as a vision tower, an encoder, or the language model.

No architecture is listed here either. Words that names have in common tell towers and projectors; any other stack of
layers is a module of its own from where its names depart from those of the language model. What is left belongs to the
language model, or between encoder and decoder to what they share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hubmerge.merge.layers import (
    LayerStack,
    find_stacks,
    follows_layers,
    largest_stack,
    layer_index,
    main_stack,
    part_in_layer,
)

ONLY_MODULE = "default"
LANGUAGE_MODULE = "text_decoder"
SHARED_MODULE = "shared"
"""What an encoder and a decoder have in common: the embedding, the head."""

_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "multi_modal_projector",
        re.compile(r"(^|[._])(\w*projector|\w*aligner|connector|resampler|\w*merger(_list)?)([._]|$)"),
    ),
    ("audio_tower", re.compile(r"(^|[._])(audio|speech)([._]|$)")),
    ("vision_tower", re.compile(r"(^|[._])(vision|visual|vit|image|img|video|vq\w*)([._]|$)")),
)
"""Names of modules, as recipes have them, and the words in tensors' names that tell them; the first match counts."""

_CONFIG_WORDS = {"audio_tower": re.compile(r"audio|speech"), "vision_tower": re.compile(r"vision|visual|vit|vq")}


@dataclass(frozen=True)
class Module:
    """Tensors that are merged alike, with layers that are counted on their own.

    Attributes:
        name: What recipes call it.
        is_main: Whether it is the language model, or the only one there is.
        layers: None if the names show none.
        parts_by_layer: What follows the layer's number in the names of its tensors, by layer, in order; under None the
            whole names of the tensors outside the layers.
    """

    name: str
    is_main: bool
    layers: LayerStack | None
    parts_by_layer: Mapping[int | None, Sequence[str]]

    @property
    def layer_count(self) -> int:
        """Number of layers; 0 if the names show none."""
        return 0 if self.layers is None else self.layers.count

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all its tensors, layer by layer."""
        return tuple(
            part if layer is None else self.name_in_layer(layer, part)
            for layer, parts in self.parts_by_layer.items()
            for part in parts
        )

    @cached_property
    def first_layer_parts(self) -> tuple[str, ...]:
        """What the first layer has beside all that the others have: T5's position bias, which serves every layer."""
        first, *others = [tuple(self.parts_by_layer.get(layer, ())) for layer in range(self.layer_count)] or [()]
        elsewhere = {part for parts in others for part in parts}
        return tuple(part for part in first if part not in elsewhere) if others and elsewhere < set(first) else ()

    def name_in_layer(self, layer: int, part: str) -> str:
        """Returns the name of a layer's tensor; see `LayerStack.name`."""
        assert self.layers is not None, "a module without layers has no tensors in them"
        return self.layers.name(layer, part)

    def __str__(self) -> str:
        tensors = _counted(sum(map(len, self.parts_by_layer.values())), "tensor")
        return (
            f"{self.name} ({_counted(self.layer_count, 'layer')}, {tensors})"
            if self.layers
            else f"{self.name} ({tensors})"
        )


def find_modules(names: Iterable[str], config: Mapping[str, Any]) -> tuple[Module, ...]:
    """Returns the modules of a checkpoint in the order of its names; every tensor is in exactly one.

    Args:
        names: The tensors of a checkpoint.
        config: Its config.json; see `main_stack`.
    """
    names = tuple(names)
    main = main_stack(names, config)
    branches = _branches(names, main)
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(_module_of(name, branches), []).append(name)
    chosen = _module_of(main.prefix, branches) if main else LANGUAGE_MODULE
    if len(grouped) < 2:
        return tuple(_module(ONLY_MODULE, group, main, is_main=True) for group in grouped.values())
    return tuple(
        _module(name, group, main if name == chosen else largest_stack(group), is_main=name == chosen)
        for name, group in grouped.items()
    )


def modules_called(modules: Sequence[Module], name: str) -> tuple[Module, ...]:
    """Returns the modules that a recipe means: the one of that name, or those that a word in tensors' names tells.

    The word is in names of one module alone, or in every name of several: `visual` is Qwen2-VL's tower and its
    projector. `text_decoder` is the language model of any model.
    """
    exact = tuple(module for module in modules if module.name == name)
    if exact or name == LANGUAGE_MODULE:
        return exact or tuple(module for module in modules if module.is_main)
    having = tuple(module for module in modules if any(_has_word(tensor, name) for tensor in module.names))
    is_whole = all(_has_word(tensor, name) for module in having for tensor in module.names)
    return having if is_whole or len(having) == 1 else ()


def counterpart(modules: Sequence[Module], module: Module) -> Module | None:
    """Returns what corresponds to another model's module: its language model to that, whatever its name."""
    same = (own for own in modules if own.is_main is module.is_main and (own.is_main or own.name == module.name))
    return next(same, None)


def config_word(module: Module) -> re.Pattern[str] | None:
    """Returns what tells the entries of config.json that are about a module; None for the language model."""
    return None if module.is_main else _CONFIG_WORDS.get(module.name, re.compile(re.escape(module.name)))


def _has_word(tensor: str, word: str) -> bool:
    return f".{word}." in f".{tensor}"


def _module(name: str, names: Sequence[str], layers: LayerStack | None, *, is_main: bool) -> Module:
    by_layer: dict[int | None, list[str]] = {}
    for tensor in names:
        by_layer.setdefault(layer_index(tensor, layers), []).append(part_in_layer(tensor, layers))
    return Module(name, is_main, layers, by_layer)


def _module_of(name: str, branches: Mapping[str, str]) -> str:
    """Returns the module of a tensor, `branches` being the modules by what names of their tensors begin with."""
    worded = next((module for module, words in _WORDS if words.search(name)), None)
    if worded is not None:
        return worded
    begun = next((module for prefix, module in branches.items() if name.startswith(prefix)), None)
    return begun or (SHARED_MODULE if branches else LANGUAGE_MODULE)


def _branches(names: Sequence[str], main: LayerStack | None) -> dict[str, str]:
    """Returns the modules that stacks beside the main one make, and then the main one's, by their prefixes."""
    if main is None:
        return {}
    forks = [_fork(stack.prefix, main.prefix) for stack in find_stacks(names) if _stands_apart(stack.prefix, main)]
    prefixes = [prefix for prefix in forks if prefix]
    if not prefixes:
        return {}
    own = max((_fork(main.prefix, prefix) for prefix in prefixes), key=len)
    return {prefix: prefix.rstrip(".").rpartition(".")[2] for prefix in (*prefixes, own)}


def _stands_apart(prefix: str, main: LayerStack) -> bool:
    is_worded = any(words.search(prefix) for _, words in _WORDS)
    return not is_worded and not follows_layers(prefix) and not prefix.startswith(_parent(main.prefix))


def _fork(prefix: str, other: str) -> str:
    """Returns a prefix up to the component in which it differs from another; empty if that is its list of layers."""
    own, theirs = prefix.split(".")[:-1], other.split(".")[:-1]
    common = next((n for n, (a, b) in enumerate(zip(own, theirs, strict=False)) if a != b), len(own))
    return "".join(f"{component}." for component in own[: common + 1]) if common + 1 < len(own) else ""


def _parent(prefix: str) -> str:
    """Returns what stands before a stack's own component: `model.` of `model.layers.`."""
    head, dot, _ = prefix.rstrip(".").rpartition(".")
    return head + dot


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
