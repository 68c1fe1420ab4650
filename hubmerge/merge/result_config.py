"""config.json of a merge: the donor's, with what the merge changed."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hubmerge.merge.assemble import MadeModule
from hubmerge.merge.layers import KeyPath, layer_count_keys
from hubmerge.merge.modules import config_word
from hubmerge.merge.planned import PlannedModel, PlannedTensor, is_head
from hubmerge.weights.dtypes import FLOAT_NAMES, is_float

DROPPED_KEYS = ("_name_or_path", "auto_map", "transformers_version")
"""What is no longer true of a merge, and code that would have to be fetched and trusted."""


def result_config(
    donor: PlannedModel, *, tensors: Mapping[str, PlannedTensor], modules: Iterable[MadeModule]
) -> dict[str, Any]:
    """Returns config.json for a model of these tensors.

    dtype, layer counts (and lists with an entry a layer) and the tied head follow the tensors; the rest is the donor's.

    Args:
        donor: Whose config.json it is.
        tensors: The result's.
        modules: What becomes of each module of the donor.
    """
    config = {key: copy.deepcopy(value) for key, value in donor.config.items() if key not in DROPPED_KEYS}
    set_dtype(config, main_dtype(tensors))
    for made in modules:
        count = made.module.layer_count
        if count and made.layers != tuple(range(count)):
            _set_layers(config, layer_count_keys(config, count, config_word(made.module)), made.layers, count)
    if donor.ties_embeddings and any(is_head(name, donor.layers) for name in tensors):
        _untie(config)
    return config


def uncounted(donor: PlannedModel, modules: Iterable[MadeModule]) -> tuple[str, ...]:
    """Returns the modules that got another number of layers, but are nowhere counted in the donor's config.json.

    The language model is not asked: checkpoints without any count are merged as well.
    """
    return tuple(
        made.module.name
        for made in modules
        if (word := config_word(made.module)) is not None
        and len(made.layers) != made.module.layer_count
        and not layer_count_keys(donor.config, made.module.layer_count, word)
    )


def main_dtype(tensors: Mapping[str, PlannedTensor]) -> str:
    """Returns the safetensors code of the float dtype that most elements have; float32 if there are none."""
    elements: Counter[str] = Counter()
    for tensor in tensors.values():
        if is_float(tensor.dtype):
            elements[tensor.dtype] += tensor.elements
    return elements.most_common(1)[0][0] if elements else "F32"


def set_dtype(config: dict[str, Any], code: str) -> None:
    """Writes the dtype under the key that the donor uses: `torch_dtype` before transformers 5, `dtype` since."""
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
    for key in keys:
        config[key] = FLOAT_NAMES[code]
    for nested in config.values():
        if isinstance(nested, dict) and ("dtype" in nested or "torch_dtype" in nested):
            set_dtype(nested, code)


def _set_layers(config: dict[str, Any], paths: Iterable[KeyPath], layers: Sequence[int], donor_count: int) -> None:
    """Rewrites the layer count and the lists with an entry a layer; beyond the donor's layers these begin again."""
    for path in paths:
        *parents, key = path
        holder = config
        for parent in parents:
            holder = holder[parent]
        value = holder[key]
        holder[key] = [value[layer % donor_count] for layer in layers] if isinstance(value, list) else len(layers)


def _untie(config: dict[str, Any]) -> None:
    config["tie_word_embeddings"] = False
    text_config = config.get("text_config")
    if isinstance(text_config, dict) and "tie_word_embeddings" in text_config:
        text_config["tie_word_embeddings"] = False
