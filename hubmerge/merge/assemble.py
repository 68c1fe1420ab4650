"""Recipe and models to planned tensors: for every slot the merge of its inputs, or a sentence that says why not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hubmerge.errors import RecipeError
from hubmerge.merge.expr import AddLora, Expr, Load, Merge, RemapRows, Same
from hubmerge.merge.findings import Findings
from hubmerge.merge.layers import role
from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.method import Settings
from hubmerge.merge.modular import module_recipes
from hubmerge.merge.modules import Module
from hubmerge.merge.planned import PlannedModel, PlannedTensor
from hubmerge.merge.recipe import Recipe, settings_for
from hubmerge.merge.slots import ModelOf, Section, Slot, sections, slots
from hubmerge.weights.dtypes import FLOAT_CODES, is_float, promote

DERIVED_SUFFIXES = ("inv_freq", "masked_bias", "attn.bias", "attention.bias", "position_ids", "num_batches_tracked")
"""Buffers that old checkpoints store and that every loader computes anew; a parent may lack them."""


@dataclass(frozen=True)
class MadeModule:
    """What becomes of one module of the model that gives the result its shape.

    Attributes:
        module: As that model has it.
        method: How it is merged; None if it is carried over from that model.
        layers: For each of its layers in the result, the layer of that model which it stands for.
        tensors: Number of its tensors in the result.
    """

    module: Module
    method: str | None
    layers: tuple[int, ...]
    tensors: int


def assemble(
    recipe: Recipe, model_of: ModelOf, findings: Findings
) -> tuple[tuple[MadeModule, ...], dict[str, PlannedTensor]]:
    """Returns the modules and the tensors of a merge, in the order in which they are best made.

    Raises:
        RecipeError: The modules or the slices do not fit the models.
    """
    donor = model_of(recipe.donor)
    made: list[MadeModule] = []
    tensors: dict[str, PlannedTensor] = {}
    for module, part in module_recipes(recipe, donor, model_of, findings):
        before = len(tensors)
        layers = tuple(range(module.layer_count))
        if part is None:
            tensors |= {name: _carried(recipe, name, donor.tensors[name]) for name in module.names}
        else:
            parts = sections(part, module, model_of)
            layers = tuple(layer for section in parts for layer in section.layers_of(donor))
            _add_merged(tensors, part, slots(parts, module), donor, findings)
            _note_first_layers(parts, findings)
        made.append(MadeModule(module, part.method if part else None, layers, len(tensors) - before))
    return tuple(made), tensors


def in_fp64(expr: Expr) -> Expr:
    """Returns an expression whose adapters are added in fp64, as the merge that they belong to is computed."""
    if isinstance(expr, AddLora):
        return replace(expr, is_double=True)
    if isinstance(expr, RemapRows):
        return replace(expr, inputs=tuple(map(in_fp64, expr.inputs)))
    return expr


def _note_first_layers(parts: Sequence[Section], findings: Findings) -> None:
    """Says what the first layers of a model lose where they do not become the first of the result."""
    for section in parts[1:]:
        for operand in section.operands:
            if operand.start == 0 and operand.module.first_layer_parts:
                name = operand.module.name_in_layer(0, operand.module.first_layer_parts[0])
                findings.note(
                    name, f"the first layer of the result has one for all; that of {operand.model.label} is left out"
                )


def _add_merged(
    tensors: dict[str, PlannedTensor], recipe: Recipe, found: Iterable[Slot], donor: PlannedModel, findings: Findings
) -> None:
    for slot in found:
        tensor = _tensor(recipe, slot, donor, findings)
        if slot.name in tensors:
            findings.problem(slot.name, "names both a layer and what follows the layers")
        elif tensor is not None:
            tensors[slot.name] = tensor


def _tensor(recipe: Recipe, slot: Slot, donor: PlannedModel, findings: Findings) -> PlannedTensor | None:
    found = [operand.model.find(name) for operand, name in zip(slot.section.operands, slot.input_names, strict=True)]
    inputs = [tensor for tensor in found if tensor is not None]
    if len(inputs) < len(found):
        return _incomplete(recipe, slot, found, donor, findings)
    if not _agree(slot, inputs, findings):
        return None
    if not is_float(inputs[0].dtype):
        return _unmerged(slot, inputs)
    return _merged(recipe, slot, inputs, findings)


def _incomplete(
    recipe: Recipe, slot: Slot, found: Sequence[PlannedTensor | None], donor: PlannedModel, findings: Findings
) -> PlannedTensor | None:
    """Carries over what only some models have, where that is harmless, and says so; else records the problem."""
    labels = [operand.model.label for operand in slot.section.operands]
    holders = [label for label, tensor in zip(labels, found, strict=True) if tensor is not None]
    lacking = [label for label, tensor in zip(labels, found, strict=True) if tensor is None]
    if not _may_be_missing(slot, found):
        findings.problem(slot.name, f"missing in {', '.join(lacking)}")
        return None
    own = _of_donor(slot, found, donor)
    if own is None:
        sentence = f"left out: {donor.label}, which gives the result its shape, lacks what {', '.join(holders)} has"
        findings.note(slot.name, sentence)
        return None
    others = [label for label in lacking if label != donor.label]
    findings.note(
        slot.name, f"carried over from {donor.label}: {', '.join(others)} {'has' if len(others) == 1 else 'have'} none"
    )
    return _carried(recipe, slot.name, own)


def _of_donor(slot: Slot, found: Sequence[PlannedTensor | None], donor: PlannedModel) -> PlannedTensor | None:
    """Returns the tensor of the model that gives the result its shape, also where it is not merged itself."""
    operands = slot.section.operands
    place = next((place for place, operand in enumerate(operands) if operand.model is donor), None)
    if place is None:
        return found[0] if slot.is_in_layer else donor.find(slot.name)
    return found[place]


def _carried(recipe: Recipe, name: str, tensor: PlannedTensor) -> PlannedTensor:
    """Returns one model's tensor as a tensor of the result, rounded to the recipe's dtype like all others."""
    code = _stated_code(recipe)
    if code is None or code == tensor.dtype or not is_float(tensor.dtype):
        return replace(tensor, name=name)
    expr = Merge(
        method="passthrough",
        name=name,
        inputs=(in_fp64(tensor.expr) if recipe.is_double else tensor.expr,),
        has_base=False,
        settings=Settings(shared={}, inputs=({"scale": 1.0},)),
        seed=recipe.seed,
        dtype=code,
        is_double=recipe.is_double,
    )
    return PlannedTensor(name, code, tensor.shape, expr)


def _may_be_missing(slot: Slot, found: Sequence[PlannedTensor | None]) -> bool:
    """Whether a model without this tensor still is the same kind of model.

    True of buffers that loaders compute, and of additions (a value head, an adapter for images) that at most one has.
    """
    if slot.name.endswith(DERIVED_SUFFIXES):
        return True
    holders = [tensor for tensor in found if tensor is not None]
    return len(holders) < 2 and role(slot.name, slot.section.operands[0].module.layers) == "other"


def _agree(slot: Slot, inputs: Sequence[PlannedTensor], findings: Findings) -> bool:
    """Whether the inputs have one shape and are all merged or all copied."""
    labels = [operand.model.label for operand in slot.section.operands]
    if len({tensor.shape for tensor in inputs}) > 1:
        sizes = ", ".join(f"{_shape_text(t.shape)} in {label}" for t, label in zip(inputs, labels, strict=True))
        findings.problem(slot.name, f"shapes differ: {sizes}")
        return False
    codes = {tensor.dtype for tensor in inputs}
    if len(codes) > 1 and not all(is_float(code) for code in codes):
        listing = ", ".join(f"{t.dtype} in {label}" for t, label in zip(inputs, labels, strict=True))
        findings.problem(slot.name, f"dtypes do not fit together: {listing}")
        return False
    return True


def _unmerged(slot: Slot, inputs: Sequence[PlannedTensor]) -> PlannedTensor:
    """Returns a tensor without arithmetic: one copy of what all inputs must hold identically."""
    stored: dict[Load, None] = {}
    for tensor in inputs:
        assert isinstance(tensor.expr, Load | Same), "only float tensors are computed"
        stored.update(dict.fromkeys(tensor.expr.inputs if isinstance(tensor.expr, Same) else (tensor.expr,)))
    expr = Same(tuple(stored)) if len(stored) > 1 else next(iter(stored))
    return PlannedTensor(slot.name, inputs[0].dtype, inputs[0].shape, expr)


def _merged(recipe: Recipe, slot: Slot, inputs: Sequence[PlannedTensor], findings: Findings) -> PlannedTensor | None:
    if slot.section.has_base and len(inputs) == 1:
        return _carried(recipe, slot.name, inputs[0])
    method = get_method(recipe.method)
    try:
        settings = _settings(recipe, slot)
    except RecipeError as error:
        findings.problem(slot.name, str(error))
        return None
    complaint = method.check(settings) if method.check else None
    if complaint is not None:
        findings.problem(slot.name, complaint)
        return None
    stated = _stated_code(recipe)
    dtype = stated or promote(tensor.dtype for tensor in inputs)
    only = inputs[0]
    if method.is_copy and method.is_copy(settings) and isinstance(only.expr, Load) and dtype == only.expr.tensor.dtype:
        return PlannedTensor(slot.name, dtype, only.shape, only.expr)
    expr = Merge(
        method=method.name,
        name=slot.name,
        inputs=tuple(in_fp64(tensor.expr) if recipe.is_double else tensor.expr for tensor in inputs),
        has_base=slot.section.has_base,
        settings=settings,
        seed=recipe.seed,
        dtype=stated,
        is_double=recipe.is_double,
    )
    return PlannedTensor(slot.name, dtype, inputs[0].shape, expr)


def _stated_code(recipe: Recipe) -> str | None:
    stated = recipe.out_dtype or recipe.dtype
    return FLOAT_CODES[stated] if stated else None


def _settings(recipe: Recipe, slot: Slot) -> Settings:
    section = slot.section
    first = 1 if section.has_base else 0
    return settings_for(
        recipe,
        section.slice_,
        sources=[operand.source for operand in section.operands[first:] if operand.source is not None],
        input_names=slot.input_names[first:],
        output_name=slot.name,
        depth=slot.depth,
    )


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
