"""Which tensors of which models go into which output tensor: the geometry of slices, before any method or setting.

Layers of the result are counted over all slices. Tensors that come before the layers (embeddings) are made from the
first slice's models and those after them (final norm, head) from the last slice's, all of its models in both cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hubmerge.errors import RecipeError
from hubmerge.merge.layers import comes_before_layers
from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.method import Base
from hubmerge.merge.planned import PlannedModel
from hubmerge.merge.recipe import Recipe, Slice, SliceSource, Source


@dataclass(frozen=True)
class Operand:
    """One model in one slice.

    Attributes:
        source: Its entry in the recipe; None for a base that the slice does not list.
        start: First layer that it gives.
    """

    model: PlannedModel
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
    """

    name: str
    section: Section
    input_names: tuple[str, ...]
    depth: float


def sections(recipe: Recipe, model_of: Callable[[Source], PlannedModel]) -> tuple[Section, ...]:
    """Returns the recipe's slices with their models.

    Raises:
        RecipeError: A slice has layers that a model does not have, or models that give different numbers of them.
    """
    return tuple(_section(recipe, slice_, model_of) for slice_ in recipe.slices)


def slots(parts: Sequence[Section]) -> Iterator[Slot]:
    """Yields every tensor of the result, in the order in which it is best read and written."""
    yield from _outer_slots(parts[0], before=True)
    layer = 0
    for section in parts:
        for offset in range(section.length):
            yield from _layer_slots(section, offset, layer)
            layer += 1
    yield from _outer_slots(parts[-1], before=False)


def _section(recipe: Recipe, slice_: Slice, model_of: Callable[[Source], PlannedModel]) -> Section:
    listed = [Operand(model_of(source.model), source, _range(source, model_of)[0]) for source in slice_.sources]
    length = _length(slice_, model_of)
    base = slice_.base_model or recipe.base_model
    if base is None or get_method(recipe.method).base is Base.DONOR:
        return Section(slice_, tuple(listed), has_base=False, length=length)
    place = next((index for index, source in enumerate(slice_.sources) if source.model == base), None)
    first = _unlisted(model_of(base), slice_, listed, length) if place is None else listed.pop(place)
    return Section(slice_, (first, *listed), has_base=True, length=length)


def _unlisted(base: PlannedModel, slice_: Slice, listed: Sequence[Operand], length: int) -> Operand:
    """Returns the base of a slice that does not list it: the same layers as its models give."""
    start = listed[0].start
    if any(operand.start != start for operand in listed):
        raise RecipeError(
            f"{slice_.where}: the models give different layers; list the base_model too, with a layer_range of its own"
        )
    is_whole = slice_.sources[0].layer_range is None
    if start + length > base.layer_count or (is_whole and length < base.layer_count):
        raise RecipeError(
            f"{slice_.where}: the models give layers {start} to {start + length - 1}, "
            f"but the base_model {base.label} has {base.layer_count} layers"
        )
    return Operand(base, None, start)


def _range(source: SliceSource, model_of: Callable[[Source], PlannedModel]) -> tuple[int, int]:
    model = model_of(source.model)
    if source.layer_range is None:
        return 0, model.layer_count
    start, stop = source.layer_range
    if stop > model.layer_count:
        raise RecipeError(
            f"{source.where}: layer_range [{start}, {stop}] goes beyond the {model.layer_count} layers of {model.label}"
        )
    return start, stop


def _length(slice_: Slice, model_of: Callable[[Source], PlannedModel]) -> int:
    lengths = [stop - start for start, stop in (_range(source, model_of) for source in slice_.sources)]
    if len(set(lengths)) > 1:
        labels = [model_of(source.model).label for source in slice_.sources]
        listing = ", ".join(f"{label} {length}" for label, length in zip(labels, lengths, strict=True))
        raise RecipeError(f"{slice_.where}: the models give different numbers of layers: {listing}")
    return lengths[0]


def _outer_slots(section: Section, *, before: bool) -> Iterator[Slot]:
    names = _distinct(
        name
        for operand in section.operands
        for name in operand.model.parts_by_layer.get(None, ())
        if comes_before_layers(name, operand.model.layers) is before
    )
    for name in names:
        yield Slot(name, section, (name,) * len(section.operands), depth=0.0)


def _layer_slots(section: Section, offset: int, layer: int) -> Iterator[Slot]:
    depth = 1.0 if section.length == 1 else offset / (section.length - 1)
    operands = section.operands
    parts = (part for op in operands for part in op.model.parts_by_layer.get(op.start + offset, ()))
    for part in _distinct(parts):
        inputs = tuple(op.model.name_in_layer(op.start + offset, part) for op in operands)
        yield Slot(operands[0].model.name_in_layer(layer, part), section, inputs, depth)


def _distinct(names: Iterable[str]) -> list[str]:
    """Returns the distinct names, the first operand's order first."""
    return list(dict.fromkeys(names))
