"""Recipe and models to planned tensors: for every slot the merge of its inputs, or a sentence that says why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from hubmerge.errors import RecipeError
from hubmerge.merge.expr import Load, Merge, Same
from hubmerge.merge.layers import name_pattern, role
from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.method import Settings
from hubmerge.merge.planned import PlannedModel, PlannedTensor
from hubmerge.merge.recipe import Recipe, Source, settings_for
from hubmerge.merge.slots import Section, Slot, sections, slots
from hubmerge.weights.dtypes import FLOAT_CODES, is_float, promote

DERIVED_SUFFIXES = ("inv_freq", "masked_bias", "attn.bias", "attention.bias", "position_ids", "num_batches_tracked")
"""Buffers that old checkpoints store and that every loader computes anew; a parent may lack them."""

SHOWN_PROBLEMS = 20


@dataclass
class Findings:
    """What planning has to say about tensors, gathered so that one mistake in 200 layers is one sentence.

    Attributes:
        hint: What to do about the problems, if there are any.
    """

    problems: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)
    hint: str | None = None

    def problem(self, tensor: str, sentence: str) -> None:
        """Records why a tensor cannot be made."""
        self.problems[name_pattern(tensor), sentence] += 1

    def note(self, tensor: str, sentence: str) -> None:
        """Records what a reader should know about a tensor."""
        self.notes[name_pattern(tensor), sentence] += 1


def sentences(findings: Counter[tuple[str, str]]) -> list[str]:
    """Returns one sentence for each finding, with the number of tensors that it is about."""
    lines = [f"{name}{f' ({count} tensors)' if count > 1 else ''}: {text}" for (name, text), count in findings.items()]
    hidden = len(lines) - SHOWN_PROBLEMS
    return lines if hidden <= 0 else [*lines[:SHOWN_PROBLEMS], f"and {hidden} more of this kind"]


def assemble(
    recipe: Recipe, model_of: Callable[[Source], PlannedModel], findings: Findings
) -> tuple[tuple[Section, ...], dict[str, PlannedTensor]]:
    """Returns the slices with their models, and the tensors of the merge in the order in which they are best made.

    Raises:
        RecipeError: The slices do not fit the models' layers.
    """
    parts = sections(recipe, model_of)
    tensors: dict[str, PlannedTensor] = {}
    for slot in slots(parts):
        tensor = _tensor(recipe, slot, findings)
        if slot.name in tensors:
            findings.problem(slot.name, "names both a layer and what follows the layers")
        elif tensor is not None:
            tensors[slot.name] = tensor
    return parts, tensors


def _tensor(recipe: Recipe, slot: Slot, findings: Findings) -> PlannedTensor | None:
    found = [operand.model.find(name) for operand, name in zip(slot.section.operands, slot.input_names, strict=True)]
    inputs = [tensor for tensor in found if tensor is not None]
    if len(inputs) < len(found):
        return _incomplete(recipe, slot, found, findings)
    if not _agree(slot, inputs, findings):
        return None
    if not is_float(inputs[0].dtype):
        return _unmerged(slot, inputs)
    return _merged(recipe, slot, inputs, findings)


def _incomplete(
    recipe: Recipe, slot: Slot, found: Sequence[PlannedTensor | None], findings: Findings
) -> PlannedTensor | None:
    """Carries over what only some models have, where that is harmless, and says so; else records the problem."""
    labels = [operand.model.label for operand in slot.section.operands]
    holders = [label for label, tensor in zip(labels, found, strict=True) if tensor is not None]
    lacking = [label for label, tensor in zip(labels, found, strict=True) if tensor is None]
    if not _may_be_missing(slot, found):
        findings.problem(slot.name, f"missing in {', '.join(lacking)}")
        return None
    if found[0] is None:
        sentence = f"left out: {labels[0]}, which gives the result its shape, lacks what {', '.join(holders)} has"
        findings.note(slot.name, sentence)
        return None
    findings.note(
        slot.name, f"carried over from {labels[0]}: {', '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} none"
    )
    return _carried(recipe, slot.name, found[0])


def _carried(recipe: Recipe, name: str, tensor: PlannedTensor) -> PlannedTensor:
    """Returns one model's tensor as a tensor of the result, rounded to the recipe's dtype like all others."""
    code = _stated_code(recipe)
    if code is None or code == tensor.dtype or not is_float(tensor.dtype):
        return replace(tensor, name=name)
    settings = Settings(shared={}, inputs=({"scale": 1.0},))
    expr = Merge("passthrough", name, (tensor.expr,), has_base=False, settings=settings, seed=recipe.seed, dtype=code)
    return PlannedTensor(name, code, tensor.shape, expr)


def _may_be_missing(slot: Slot, found: Sequence[PlannedTensor | None]) -> bool:
    """Whether a model without this tensor still is the same kind of model.

    True of buffers that loaders compute, and of whole parts (a vision tower, a value head) that just one model has.
    """
    if slot.name.endswith(DERIVED_SUFFIXES):
        return True
    holders = [tensor for tensor in found if tensor is not None]
    return len(holders) == 1 and role(slot.name, slot.section.operands[0].model.layers) == "other"


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
        inputs=tuple(tensor.expr for tensor in inputs),
        has_base=slot.section.has_base,
        settings=settings,
        seed=recipe.seed,
        dtype=stated,
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
