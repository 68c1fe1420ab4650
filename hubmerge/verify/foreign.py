"""Merges that mergekit made: how far its rounding is from ours, and what nobody can compute again.

mergekit casts its inputs to the recipe's dtype and computes task vectors, products and sums in it, where hubmerge has
fp32 and rounds once. So a value may be off by some units in the last place (see `compare`), and where a method decides
(a sign, a threshold), a near tie may fall to the other side, which changes the whole element. Both were measured with
mergekit 0.1.5 on fine-tuned siblings in bfloat16 and float16; the table has room for twice what was seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hubmerge.merge.expr import Expr, Gate, Merge, Random, walk
from hubmerge.merge.plan import Plan
from hubmerge.verify.compare import Differences


@dataclass(frozen=True)
class Rounding:
    """How far values may be from the computed ones.

    Attributes:
        ulps: Most units in the last place.
        share: Most elements of a tensor that may be further off: decisions that fell the other way.
    """

    ulps: float = 0
    share: float = 0

    def explains(self, found: Differences) -> bool:
        """Whether what was found is no more than this."""
        return found.beyond <= self.share * found.looked_at


ROUNDINGS = {
    "breadcrumbs": Rounding(4, share=0.05),
    "breadcrumbs_ties": Rounding(4, share=0.05),
    "karcher": Rounding(8),
    "linear": Rounding(2),
    "model_stock": Rounding(4),
    "multislerp": Rounding(8),
    "nuslerp": Rounding(4),
    "passthrough": Rounding(1),
    "slerp": Rounding(2),
    "task_arithmetic": Rounding(2),
    "ties": Rounding(2, share=0.05),
}
"""By method; with the others too many elements fall to another side, or nothing was measured."""

RANDOM = frozenset({"dare_linear", "dare_ties", "della", "della_linear"})
"""Methods with random masks, which mergekit draws from a generator whose state it does not record."""


def rounding_of(plan: Plan) -> Rounding | str:
    """Returns how far mergekit's values may be from the plan's, or why that cannot be said."""
    if any(_has_routers(tensor.expr) for tensor in plan.tensors):
        return "mergekit finds the routers of a mixture in another way, or draws them at random"
    methods = sorted(methods_of(plan))
    for method in methods:
        if method in RANDOM:
            return f"mergekit does not record the random masks of {method}, so nobody can draw them again"
        if method not in ROUNDINGS:
            return f"mergekit's rounding of {method} is not known well enough to tell it from a change"
    known = [ROUNDINGS[method] for method in methods]
    most = max((each.ulps for each in known), default=0)
    return Rounding(most * max(1, merge_depth(plan)), share=max((each.share for each in known), default=0))


def _has_routers(expr: Expr) -> bool:
    return any(isinstance(part, Random | Gate) for part in walk(expr))


def methods_of(plan: Plan) -> set[str]:
    """Returns the methods that a plan uses."""
    return {method for tensor in plan.tensors for method in _methods(tensor.expr)}


def _methods(expr: Expr) -> Iterator[str]:
    return (part.method for part in walk(expr) if isinstance(part, Merge))


def merge_depth(plan: Plan) -> int:
    """Returns how many merges stand within each other: each rounds once more."""
    return max((_depth_of(tensor.expr, {}) for tensor in plan.tensors), default=0)


def _depth_of(expr: Expr, known: dict[int, int]) -> int:
    if id(expr) not in known:
        below = max((_depth_of(operand, known) for operand in expr.inputs), default=0)
        known[id(expr)] = below + isinstance(expr, Merge)
    return known[id(expr)]
