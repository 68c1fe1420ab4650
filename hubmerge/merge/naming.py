"""Models whose checkpoints name the same tensors differently, brought to the names of one of them.

A language model alone names its layers `model.layers.0`, inside LLaVA it is `language_model.model.layers.0`; a BERT or
GPT-2 that was saved without its head lacks the prefix that it has with one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hubmerge.merge.layers import LayerStack
from hubmerge.merge.modules import Module, counterpart
from hubmerge.merge.planned import PlannedModel, planned_model


def named_like(model: PlannedModel, other: PlannedModel) -> tuple[PlannedModel, tuple[str, ...]]:
    """Returns a model with its tensors named as in another one where only what stands before differs, and notes.

    Layers correspond if what follows their number is the same; tensors around them, if what follows the common path to
    the layers is. A tensor without a counterpart keeps what follows.
    """
    names: dict[str, str] = {}
    notes: list[str] = []
    for own in model.modules:
        theirs = counterpart(other.modules, own)
        found = {} if theirs is None else _translation(own, theirs)
        names.update(found)
        if found and own.layers and theirs and theirs.layers:
            prefixes = f"{own.layers.prefix}* in {model.label} and {theirs.layers.prefix}* in {other.label}"
            notes.append(f"{theirs.name}: the names differ ({prefixes}); tensors are matched by what follows")
    new = [names.get(name, name) for name in model.tensors]
    if not names or len(set(new)) < len(new):
        return model, ()
    tensors = {name: replace(tensor, name=name) for name, tensor in zip(new, model.tensors.values(), strict=True)}
    renamed = planned_model(
        model.label, donor=model.donor, config=model.config, tensors=tensors, tokenizer=model.tokenizer
    )
    return renamed, tuple(notes)


def _translation(own: Module, theirs: Module) -> Mapping[str, str]:
    """Returns what a module's tensors are called in another model; empty if they are named alike or nothing is."""
    if own.layers is None or theirs.layers is None or own.layers.prefix == theirs.layers.prefix:
        return {}
    if not set(own.parts_by_layer.get(0, ())) & set(theirs.parts_by_layer.get(0, ())):
        return {}
    return {name: _translated(name, own, theirs) for name in own.names}


def _translated(name: str, own: Module, theirs: Module) -> str:
    assert own.layers is not None, "only modules with layers are translated"
    assert theirs.layers is not None, "only modules with layers are translated"
    if name.startswith(own.layers.prefix):
        return theirs.layers.prefix + name.removeprefix(own.layers.prefix)
    local = _local(name, own.layers)
    same = (other for other in theirs.parts_by_layer.get(None, ()) if _local(other, theirs.layers) == local)
    *_, innermost = _paths(own.layers)
    kept = _paths(theirs.layers)[-1] + local if innermost and name.startswith(innermost) else name
    return next(same, kept)


def _local(name: str, layers: LayerStack) -> str:
    """Returns what follows the longest path to the layers that a name begins with."""
    return next(name.removeprefix(path) for path in reversed(_paths(layers)) if name.startswith(path))


def _paths(layers: LayerStack) -> list[str]:
    """Returns every path on the way to the layers: "", `language_model.` and `language_model.model.` of LLaVA."""
    components = layers.prefix.split(".")[:-2]
    return ["".join(f"{component}." for component in components[:count]) for count in range(len(components) + 1)]
