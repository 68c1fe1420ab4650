"""Which tensors of which models go into which output tensor: the geometry of slices, before any method or setting.

Layers of the result are counted over all slices of a module. Tensors that come before the layers (embeddings) are made
from the first slice's models and those after them (final norm, head) from the last slice's, all of its models in both
cases. What just the first layer of a model has (T5's position bias) goes to the result's first layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hubmerge.errors import RecipeError
from hubmerge.merge.layers import comes_before_layers
from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.method import Base
from hubmerge.merge.modules import Module, counterpart
from hubmerge.merge.planned import PlannedModel
from hubmerge.merge.recipe import Recipe, Slice, SliceSource, Source

ModelOf = Callable[[Source], PlannedModel]


@dataclass(frozen=True)
class Operand:
    """One model in one slice.

    Attributes:
        module: The part of it that is merged.
        source: Its entry in the recipe; None for a base that the slice does not list.
        start: First layer that it gives.
    """

    model: PlannedModel
    module: Module
    source: SliceSource | None
    start: int


@dataclass(frozen=True)
class Section:
    """A slice with its models found: what one run of output layers is made from.

    Attributes:
        operands: In the order that the method wants: the base first if `has_base`.
        length: Number of layers.
    """

    slice_: Slice
    operands: tuple[Operand, ...]
    has_base: bool
    length: int

    def layers_of(self, donor: PlannedModel) -> range:
        """Returns the donor's layers that this section stands for; where it is no operand, as the first one counts."""
        start = next((operand.start for operand in self.operands if operand.model is donor), self.operands[0].start)
        return range(start, start + self.length)


@dataclass(frozen=True)
class Slot:
    """One output tensor and the name of what goes into it in each operand.

    Attributes:
        depth: Position of the layer in its slice, 0 to 1; 0 for tensors outside the layers.
        is_in_layer: Whether the tensor belongs to a layer.
    """

    name: str
    section: Section
    input_names: tuple[str, ...]
    depth: float
    is_in_layer: bool


def sections(recipe: Recipe, module: Module, model_of: ModelOf) -> tuple[Section, ...]:
    """Returns the recipe's slices with their models, of each the part that corresponds to a module of the donor.

    Raises:
        RecipeError: A slice has layers that a model does not have, models that give different numbers of them, or a
            model without such a module.
    """
    return tuple(_section(recipe, slice_, module, model_of) for slice_ in recipe.slices)


def slots(parts: Sequence[Section], module: Module) -> Iterator[Slot]:
    """Yields every tensor of a module of the result, in the order in which it is best read and written.

    Args:
        parts: The module's slices.
        module: As the donor has it; tensors around its layers are yielded even where no other model has them.
    """
    yield from _outer_slots(parts[0], module, before=True)
    layer = 0
    for section in parts:
        for offset in range(section.length):
            yield from _layer_slots(section, module, offset, layer)
            layer += 1
    yield from _outer_slots(parts[-1], module, before=False)


def _section(recipe: Recipe, slice_: Slice, module: Module, model_of: ModelOf) -> Section:
    listed = [_operand(source, module, model_of) for source in slice_.sources]
    length = _length(slice_, listed)
    base = slice_.base_model or recipe.base_model
    if base is None or get_method(recipe.method).base is Base.DONOR:
        return Section(slice_, tuple(listed), has_base=False, length=length)
    place = next((index for index, source in enumerate(slice_.sources) if source.model == base), None)
    first = _unlisted(model_of(base), module, slice_, listed, length) if place is None else listed.pop(place)
    return Section(slice_, (first, *listed), has_base=True, length=length)


def _operand(source: SliceSource, module: Module, model_of: ModelOf) -> Operand:
    model = model_of(source.model)
    own = _own(model, module, source.where)
    start, stop = source.layer_range or (0, own.layer_count)
    if stop > own.layer_count:
        raise RecipeError(
            f"{source.where}: layer_range [{start}, {stop}] goes beyond the {own.layer_count} layers of {model.label}"
        )
    return Operand(model, own, source, start)


def _own(model: PlannedModel, module: Module, where: str) -> Module:
    own = counterpart(model.modules, module)
    if own is None:
        listing = ", ".join(map(str, model.modules))
        raise RecipeError(f"{where}: {model.label} has no module {module.name}; it has {listing}")
    return own


def _unlisted(base: PlannedModel, module: Module, slice_: Slice, listed: Sequence[Operand], length: int) -> Operand:
    """Returns the base of a slice that does not list it: the same layers as its models give."""
    start = listed[0].start
    if any(operand.start != start for operand in listed):
        raise RecipeError(
            f"{slice_.where}: the models give different layers; list the base_model too, with a layer_range of its own"
        )
    own = _own(base, module, slice_.where)
    is_whole = slice_.sources[0].layer_range is None
    if start + length > own.layer_count or (is_whole and length < own.layer_count):
        raise RecipeError(
            f"{slice_.where}: the models give layers {start} to {start + length - 1}, "
            f"but the base_model {base.label} has {own.layer_count} layers"
        )
    return Operand(base, own, None, start)


def _length(slice_: Slice, operands: Sequence[Operand]) -> int:
    ranges = [(s.layer_range or (0, op.module.layer_count)) for s, op in zip(slice_.sources, operands, strict=True)]
    lengths = [stop - start for start, stop in ranges]
    if len(set(lengths)) > 1:
        labels = [operand.model.label for operand in operands]
        listing = ", ".join(f"{label} {length}" for label, length in zip(labels, lengths, strict=True))
        module = "" if operands[0].module.is_main else f" in {operands[0].module.name}"
        raise RecipeError(f"{slice_.where}: the models give different numbers of layers{module}: {listing}")
    return lengths[0]


def _outer_slots(section: Section, module: Module, *, before: bool) -> Iterator[Slot]:
    having = [*(operand.module for operand in section.operands), module]
    names = _distinct(
        name
        for own in having
        for name in own.parts_by_layer.get(None, ())
        if comes_before_layers(name, own.layers) is before
    )
    for name in names:
        yield Slot(name, section, (name,) * len(section.operands), depth=0.0, is_in_layer=False)


def _layer_slots(section: Section, module: Module, offset: int, layer: int) -> Iterator[Slot]:
    depth = 1.0 if section.length == 1 else offset / (section.length - 1)
    operands = section.operands
    named_by = module if module.layers else operands[0].module
    only_first = _distinct(part for op in operands for part in op.module.first_layer_parts)
    parts = _distinct(part for op in operands for part in op.module.parts_by_layer.get(op.start + offset, ()))
    kept = _distinct([*only_first, *parts]) if layer == 0 else [part for part in parts if part not in only_first]
    for part in kept:
        inputs = tuple(op.module.name_in_layer(0 if part in only_first else op.start + offset, part) for op in operands)
        yield Slot(named_by.name_in_layer(layer, part), section, inputs, depth, is_in_layer=True)


def _distinct(names: Iterable[str]) -> list[str]:
    """Returns the distinct names, the first operand's order first."""
    return list(dict.fromkeys(names))
