"""The names of what goes into each tensor's merge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from hubmerge.merge.expr import AddLora, Dithered, Expr, Gate, Load, Merge, Random, RemapRows, Same
from hubmerge.merge.plan import OutputTensor, Parent, Plan

SHOWN_MODELS = 3
"""Of a nested merge."""


def operand_names(plan: Plan, tensors: Iterable[OutputTensor]) -> dict[str, tuple[str, ...]]:
    """Returns the operands' names, by tensor, of those of the plan's tensors that a merge makes.

    Rows of a common vocabulary may come from any model; such operands are called as those of the nearest tensor are.
    """
    models = model_names(plan.parents)
    merged = [tensor for tensor in tensors if isinstance(tensor.expr, Merge)]
    named = {tensor.info.name: _names(tensor, models) for tensor in merged}
    known = [names for names in named.values() if names is not None]
    return {
        name: names or _nearest(known, len(_merge(tensor).inputs))
        for (name, names), tensor in zip(named.items(), merged, strict=True)
    }


def leaf_merge(tensor: OutputTensor) -> OutputTensor:
    """Returns the tensor as if all models of a tree of merges went into one; the base stays first."""
    expr = _merge(tensor)
    leaves = tuple(dict.fromkeys(_leaves(expr, set())))
    return replace(
        tensor, expr=replace(expr, inputs=leaves, has_base=expr.has_base and not isinstance(expr.inputs[0], Merge))
    )


def model_names(parents: Sequence[Parent]) -> tuple[str, ...]:
    """Returns what pictures and sentences call each parent: the last part of its repo id or folder.

    Where that is not one parent's alone it is the repo id, and where that does not tell them apart, a number is added.
    """
    last = [re.split(r"[/\\]", parent.ref.path.rstrip("/\\"))[-1] for parent in parents]
    named = [
        name if last.count(name) == 1 or parent.ref.is_local else parent.ref.path
        for name, parent in zip(last, parents, strict=True)
    ]
    return tuple(
        f"{name} ({named[: number + 1].count(name)})" if named.count(name) > 1 else name
        for number, name in enumerate(named)
    )


def _names(tensor: OutputTensor, models: Sequence[str]) -> tuple[str, ...] | None:
    inputs = _merge(tensor).inputs
    if any(isinstance(operand, RemapRows) for operand in inputs):
        return None
    known: dict[int, str] = {}
    return tuple(_name(operand, models, known) for operand in inputs)


def _name(expr: Expr, models: Sequence[str], known: dict[int, str]) -> str:
    """Returns what an operand is called; `known` keeps that of parts of a tree, which may stand in many places."""
    if id(expr) not in known:
        known[id(expr)] = _new_name(expr, models, known)
    return known[id(expr)]


def _new_name(expr: Expr, models: Sequence[str], known: dict[int, str]) -> str:
    match expr:
        case Load():
            return models[expr.parent]
        case AddLora():
            return f"{_name(expr.weight, models, known)}+{models[expr.a.parent]}"
        case Merge():
            inner = list(dict.fromkeys(_name(operand, models, known) for operand in expr.inputs))
            return f"{expr.method}({', '.join(inner) if len(inner) <= SHOWN_MODELS else f'{len(inner)} models'})"
        case RemapRows() | Same() | Dithered():
            return _name(expr.inputs[0], models, known)
        case Random() | Gate():
            return "noise"


def _leaves(expr: Merge, met: set[int]) -> Iterator[Expr]:
    """Yields what merges are made from that is none itself; `met` has the `id()` of merges that were gone into."""
    for operand in expr.inputs:
        if not isinstance(operand, Merge):
            yield operand
        elif id(operand) not in met:
            met.add(id(operand))
            yield from _leaves(operand, met)


def _nearest(known: Sequence[tuple[str, ...]], count: int) -> tuple[str, ...]:
    numbered = tuple(f"model {number}" for number in range(1, count + 1))
    return next((names for names in known if len(names) == count), numbered)


def _merge(tensor: OutputTensor) -> Merge:
    assert isinstance(tensor.expr, Merge)
    return tensor.expr
