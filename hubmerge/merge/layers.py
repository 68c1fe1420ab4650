"""The grammar of tensor names: which layer a tensor belongs to, and what the tensors outside the layers are.

No architecture is listed here. A stack of layers is a numbered component that counts from zero under one prefix; the
rest is told by the words that transformers' models have in common, so a model released tomorrow is read the same way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Role = Literal["embed", "head", "norm", "layer", "other"]
KeyPath = tuple[str, ...]

COUNT_KEYS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_decoder_layers",
    "decoder_layers",
    "encoder_layers",
    "depth",
)
"""Names of the layer count in config.json."""

_OTHER_COUNT_KEYS = ("encoder_layers", "depth")
"""Of these, those that never count the layers of a language model."""

_NUMBERED = re.compile(r"([^\d.][^.]*(?:\.[^\d.][^.]*)*\.)(\d{1,6})\.", re.ASCII)
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)", re.ASCII)
_TEXT_CONFIG = re.compile(r"(^|_)(text|language|llm|thinker|decoder)(_|$)")
_NOT_BY_LAYER = re.compile(r"token|keys|architectures|feature_layer|ind(ex|ices)|_ids?$")
_TOWER = re.compile(
    r"(^|[._])(vision|visual|vit|image|img|video|audio|speech|vq\w*|\w*projector|connector|resampler)([._]|$)"
)
_LEAF = re.compile(r"\.(weight|bias)$")
_EMBED = re.compile(r"(^|\.)(embed_tokens\w*|wte|(word_|tok_|token_)?embeddings?|embed_in|embed|shared)$")
_HEAD = re.compile(
    r"(^|\.)(lm_head(\.decoder)?|embed_out|output|output_layer|head|proj_out|vocab_projector|cls\.predictions(\.decoder)?)$"
)
_NORM = re.compile(r"norm|(^|\.)ln_?\w*$", re.IGNORECASE)
_AFTER = re.compile(
    r"(^|[._])(lm_head|cls|score|classifier|pooler|qa_outputs|\w*head|summary|unembed\w*|mtp"
    r"|post_\w*norm|\w*norm_post|ln_post)([._]|$)"
)


@dataclass(frozen=True)
class LayerStack:
    """Layers that follow each other.

    Attributes:
        prefix: What their names begin with, up to the layer's number: `model.layers.`.
        count: How many they are; what has a higher number (a layer for multi-token prediction) is not one of them.
    """

    prefix: str
    count: int

    def name(self, layer: int, part: str) -> str:
        """Returns the name of a layer's tensor; layers beyond the last may be asked for."""
        return f"{self.prefix}{layer}.{part}"


def find_stacks(names: Iterable[str]) -> tuple[LayerStack, ...]:
    """Returns every stack of a checkpoint in the order of its names; experts and the like inside a layer are none."""
    numbers: dict[str, set[int]] = {}
    for name in names:
        if found := _NUMBERED.match(name):
            numbers.setdefault(found[1], set()).add(int(found[2]))
    return tuple(LayerStack(prefix, len(found)) for prefix, found in numbers.items() if found == set(range(len(found))))


def main_stack(names: Iterable[str], config: Mapping[str, Any]) -> LayerStack | None:
    """Returns the stack that a recipe's layers mean, or None where the names show no stack.

    It is the language model's, not a vision tower's; of an encoder and a decoder it is the decoder's.

    Args:
        names: The tensors of a checkpoint.
        config: Its config.json, whose layer count decides between stacks and tells layers from what follows them.
    """
    names = tuple(names)
    stacks = find_stacks(names)
    candidates = [stack for stack in stacks if not _TOWER.search(stack.prefix)] or stacks
    if not candidates:
        return None
    stated = {count for _, count in _stated_counts(config)}
    sizes = Counter(found[1] for name in names if (found := _NUMBERED.match(name)))

    def suits(stack: LayerStack) -> tuple[bool, bool, bool, int]:
        exact = stack.count in stated
        longer = not exact and any(0 < count < stack.count for count in stated)
        return exact, longer, "decoder" in stack.prefix, sizes[stack.prefix]

    best = max(candidates, key=suits)
    shorter = [count for count in stated if 0 < count <= best.count]
    return replace(best, count=max(shorter, default=best.count))


def largest_stack(names: Iterable[str]) -> LayerStack | None:
    """Returns the stack with the most tensors, or None where the names show no stack."""
    names = tuple(names)
    sizes = Counter(found[1] for name in names if (found := _NUMBERED.match(name)))
    return max(find_stacks(names), key=lambda stack: sizes[stack.prefix], default=None)


def layer_index(name: str, stack: LayerStack | None) -> int | None:
    """Returns the layer that a tensor belongs to, or None outside the stack."""
    found = _NUMBERED.match(name)
    if stack is None or found is None or found[1] != stack.prefix:
        return None
    number = int(found[2])
    return number if number < stack.count else None


def part_in_layer(name: str, stack: LayerStack | None) -> str:
    """Returns what follows the layer's number in a tensor's name; the whole name outside the stack."""
    if stack is None or layer_index(name, stack) is None:
        return name
    return name[len(stack.prefix) :].partition(".")[2]


def name_pattern(name: str) -> str:
    """Returns a tensor's name with `*` for its numbers, so that layers and experts are counted together."""
    return _NUMBER.sub("*", name)


def role(name: str, stack: LayerStack | None) -> Role:
    """Returns what a tensor is to a language model.

    `embed` and `head` have a row for each token; position tables, classifiers and whatever belongs to another tower or
    stack are `other`.
    """
    if layer_index(name, stack) is not None:
        return "layer"
    module = _LEAF.sub("", name)
    if _TOWER.search(name) or _NUMBERED.match(name):
        return "other"
    if _HEAD.search(module):
        return "head"
    if _NORM.search(module.rpartition(".")[2]):
        return "norm"
    return "embed" if _EMBED.search(module) and name.endswith(".weight") else "other"


def comes_before_layers(name: str, stack: LayerStack | None) -> bool:
    """Returns whether a tensor outside the stack works on the way to its first layer, not behind its last."""
    kind = role(name, stack)
    if kind == "norm" and stack is not None and not _AFTER.search(name):
        parent, _, own = _LEAF.sub("", name).rpartition(".")
        return "emb" in own or not stack.prefix.startswith(f"{parent}." if parent else "")
    follows = stack is not None and name.startswith(stack.prefix)
    return kind != "head" and not follows and not _AFTER.search(name)


def follows_layers(words: str) -> bool:
    """Returns whether part of a tensor's name says that it works behind the last layer: a head, a classifier."""
    return bool(_AFTER.search(words))


def names_tower(words: str) -> bool:
    """Returns whether part of a tensor's name says that it belongs to a tower for images, audio or the like."""
    return bool(_TOWER.search(words))


def layer_count_keys(config: Mapping[str, Any], count: int, word: re.Pattern[str] | None = None) -> tuple[KeyPath, ...]:
    """Returns the paths in config.json of the layer count and of lists with an entry a layer, such as `layer_types`.

    Args:
        config: config.json.
        count: How many layers there are.
        word: Tells the entries that are about the module whose layers are meant; None for the language model.
    """
    if word is None:
        found = [path for path, value in _stated_counts(config) if value == count]
        return (*_of_decoder(found, config), *_layer_lists(_text_levels(config), count))
    nested = tuple(_levels_about(config, word))
    if nested:
        stated = [path for path, value in _counts_in(nested) if value == count]
        return (*stated, *_layer_lists(nested, count))
    if not config.get("is_encoder_decoder"):
        return ()
    return tuple(path for path, value in _counts_in([((), config)]) if value == count and "decoder" not in path[-1])


def _of_decoder(found: Sequence[KeyPath], config: Mapping[str, Any]) -> Sequence[KeyPath]:
    """Returns the counts of the decoder, where a configuration has those of an encoder too."""
    decoders = [path for path in found if "decoder" in path[-1]]
    return decoders if config.get("is_encoder_decoder") and decoders else found


def _layer_lists(levels: Iterable[tuple[KeyPath, Mapping[str, Any]]], count: int) -> list[KeyPath]:
    return [
        (*path, key)
        for path, level in levels
        for key, value in level.items()
        if isinstance(value, list) and len(value) == count and not _NOT_BY_LAYER.search(key)
    ]


def _stated_counts(config: Mapping[str, Any]) -> Iterator[tuple[KeyPath, int]]:
    counts = _counts_in(_text_levels(config))
    yield from ((path, count) for path, count in counts if path[-1] not in _OTHER_COUNT_KEYS)


def _counts_in(levels: Iterable[tuple[KeyPath, Mapping[str, Any]]]) -> Iterator[tuple[KeyPath, int]]:
    for path, level in levels:
        for key in COUNT_KEYS:
            if isinstance(level.get(key), int) and not isinstance(level[key], bool):
                yield (*path, key), level[key]


def _text_levels(config: Mapping[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Yields config.json itself and the nested configurations of the language model in it."""
    yield path, config
    for key, value in config.items():
        if isinstance(value, Mapping) and _TEXT_CONFIG.search(key):
            yield from _text_levels(value, (*path, key))


def _levels_about(
    config: Mapping[str, Any], word: re.Pattern[str], path: KeyPath = ()
) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Yields the nested configurations whose key has the word."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            if word.search(key):
                yield (*path, key), value
            yield from _levels_about(value, word, (*path, key))
