"""The grammar of tensor names: which component counts layers, and what a tensor outside the layers is.

No architecture is known here. A checkpoint's names show its stacks of layers (a prefix followed by 0, 1, ... n−1), and
config.json says how many layers the text model has, which tells the main stack from a vision tower's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["embed", "head", "norm", "layer", "other"]

LAYER_COUNT_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
TEXT_CONFIG_KEYS = ("text_config", "language_config", "llm_config")

_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output|head|score|classifier|cls)(\.|$)")
_EMBED = re.compile(r"embed|(^|\.)(wte|wpe|shared|tok_emb|emb)(\.|$)")
_NORM = re.compile(r"norm|(^|\.)ln_f(\.|$)")
_NOT_TEXT = re.compile(r"vision|visual|audio|image|speech|vit")


@dataclass(frozen=True)
class LayerStack:
    """Layers that are told apart by one numeric component: `prefix.0.`, `prefix.1.`, ...

    Attributes:
        prefix: What stands before the number, without the dot: `model.layers`.
        count: Number of layers.
    """

    prefix: str
    count: int


def find_stacks(names: Iterable[str]) -> tuple[LayerStack, ...]:
    """Returns every outermost run of numbered layers, the one with most tensors first."""
    numbers: dict[str, set[int]] = {}
    sizes: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        place = next((index for index, part in enumerate(parts) if part.isdigit()), None)
        if place:
            prefix = ".".join(parts[:place])
            numbers.setdefault(prefix, set()).add(int(parts[place]))
            sizes[prefix] = sizes.get(prefix, 0) + 1
    whole = [prefix for prefix, seen in numbers.items() if seen == set(range(len(seen)))]
    return tuple(LayerStack(prefix, len(numbers[prefix])) for prefix in sorted(whole, key=lambda p: (-sizes[p], p)))


def main_stack(names: Iterable[str], config: Mapping[str, Any]) -> LayerStack | None:
    """Returns the layers of the text model: the stack as long as config.json says; None if names show no layers.

    A stack may go on beyond that number (layers for multi-token prediction): those do not count.
    """
    stacks = sorted(find_stacks(names), key=lambda stack: bool(_NOT_TEXT.search(stack.prefix)))
    declared = layer_count(config)
    for stack in stacks:
        if stack.count == declared:
            return stack
    for stack in stacks:
        if declared is not None and stack.count > declared:
            return LayerStack(stack.prefix, declared)
    return stacks[0] if stacks and declared is None else None


def layer_index(name: str, stack: LayerStack | None) -> int | None:
    """Returns the number of the layer that a tensor belongs to, or None outside the stack."""
    if stack is None or not name.startswith(f"{stack.prefix}."):
        return None
    number = name[len(stack.prefix) + 1 :].split(".", 1)[0]
    return int(number) if number.isdigit() and int(number) < stack.count else None


def with_layer(name: str, stack: LayerStack | None, index: int) -> str:
    """Returns the name that the tensor has in another layer; outside the stack, its own."""
    if stack is None or not name.startswith(f"{stack.prefix}."):
        return name
    number, dot, rest = name[len(stack.prefix) + 1 :].partition(".")
    return f"{stack.prefix}.{index}{dot}{rest}" if number.isdigit() else name


def role(name: str, stack: LayerStack | None) -> Role:
    """Returns what a tensor is to the model, as far as its name tells."""
    if layer_index(name, stack) is not None:
        return "layer"
    if _NOT_TEXT.search(name):
        return "other"
    if _HEAD.search(name):
        return "head"
    if _EMBED.search(name):
        return "embed"
    return "norm" if _NORM.search(name) else "other"


def comes_before_layers(name: str, stack: LayerStack | None) -> bool:
    """Returns whether a tensor outside the layers is used before them: an embedding, or a part that feeds the text."""
    return role(name, stack) in ("embed", "other")


def layer_count(config: Mapping[str, Any]) -> int | None:
    """Returns how many layers config.json says the text model has; None if it does not say."""
    for holder in (config, *_text_configs(config)):
        for key in LAYER_COUNT_KEYS:
            if isinstance(holder.get(key), int):
                return int(holder[key])
    return None


def layer_count_keys(config: Mapping[str, Any], count: int) -> list[tuple[str, ...]]:
    """Returns the paths in config.json of what goes with the number of layers: the number, and lists as long as it."""
    paths: list[tuple[str, ...]] = []
    for path, holder in _holders(config):
        keys = [key for key in LAYER_COUNT_KEYS if holder.get(key) == count]
        lists = [key for key, value in holder.items() if isinstance(value, list) and len(value) == count and count > 1]
        paths += [(*path, key) for key in (*keys, *lists)]
    return paths


def _holders(config: Mapping[str, Any]) -> Sequence[tuple[tuple[str, ...], Mapping[str, Any]]]:
    nested = [((key,), config[key]) for key in TEXT_CONFIG_KEYS if isinstance(config.get(key), Mapping)]
    return [((), config), *nested]


def _text_configs(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [holder for path, holder in _holders(config) if path]
