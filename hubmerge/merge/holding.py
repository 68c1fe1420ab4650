"""Which results within an expression are held whole while it is computed, and how much memory they take.

Those are results of merges that are passed over more than once: because a method first measures norms or thresholds,
because rows are gathered from anywhere, or because several parts of a tree use the same inner merge. Each is computed
once; all else is streamed block by block.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from hubmerge.merge.expr import AddLora, Dithered, Expr, Load, Merge, RemapRows, walk
from hubmerge.merge.methods import get_method
from hubmerge.weights.header import item_size

ARITHMETIC_BYTES = {True: 8, False: 4}
"""Of an element in fp64, and in fp32."""


def held_parts(expr: Expr) -> dict[int, Expr]:
    """Returns the parts of an expression that are held, by their `id()`."""
    uses = _uses(expr)
    operands = [(operand, _passes_repeatedly(part)) for part in walk(expr) for operand in part.inputs]
    repeated = {id(operand): operand for operand, often in operands if often or uses[id(operand)] > 1}
    return {key: part for key, part in repeated.items() if _has_merge(part)}


def held_bytes_at_most(expr: Expr) -> int:
    """Returns the most memory that held results take at a time while an expression is computed.

    Results that several parts use count all the time.
    """
    held, uses = held_parts(expr), _uses(expr)
    sizes = {key: _result_bytes(part) for key, part in held.items()}
    shared = [key for key in held if uses[key] > 1]
    most, _ = _peak(expr, sizes, dict.fromkeys(shared, False))
    return most + sum(sizes[key] for key in shared)


def _uses(expr: Expr) -> Counter[int]:
    """Returns how many times each part is an operand of others, by its `id()`."""
    return Counter(id(operand) for part in walk(expr) for operand in part.inputs)


def _passes_repeatedly(expr: Expr) -> bool:
    return isinstance(expr, RemapRows) or (isinstance(expr, Merge) and get_method(expr.method).prepare is not None)


def _has_merge(expr: Expr) -> bool:
    return any(isinstance(part, Merge) for part in walk(expr))


def _peak(expr: Expr, sizes: Mapping[int, int], shared: dict[int, bool]) -> tuple[int, int]:
    """Returns the most that is held while a part is computed, and what stays held until nobody reads it any more.

    Args:
        expr: The part.
        sizes: Bytes of what is held, by `id()`.
        shared: Whether what several parts use was met already, by `id()`; its own bytes are counted by the caller.
    """
    if shared.get(id(expr)):
        return 0, 0
    most = kept = 0
    for operand in expr.inputs:
        operand_most, operand_kept = _peak(operand, sizes, shared)
        most = max(most, kept + operand_most)
        kept += operand_kept
    if id(expr) not in sizes:
        return most, kept
    if id(expr) in shared:
        shared[id(expr)] = True
        return most, 0
    own = sizes[id(expr)]
    return max(most, kept + own), own


def _result_bytes(expr: Expr) -> int:
    stated = expr.dtype if isinstance(expr, Merge) else None
    return _elements(expr) * (item_size(stated) if stated else ARITHMETIC_BYTES[any(map(_asks_for_fp64, walk(expr)))])


def _asks_for_fp64(part: Expr) -> bool:
    if isinstance(part, AddLora | Merge):
        return part.is_double
    return isinstance(part, Load) and part.tensor.dtype == "F64"


def _elements(expr: Expr) -> int:
    if isinstance(expr, Load):
        return expr.tensor.elements
    if isinstance(expr, Merge | Dithered) or not hasattr(expr, "shape"):
        return _elements(expr.inputs[0])
    return math.prod(expr.shape)
