"""Merges that were computed on a CUDA device: how far its rounding may be from the processor's.

Both compute in fp32, add up over tensors in fp64 and draw the same random masks, but fuse and order single operations
in their own ways. That moves a result by a few units of the last place of fp32, which shows in bf16 and fp16 where it
lies at the middle between two numbers. Where a method decides by a computed sum (a sign, a variance, an importance), a
near tie may fall to the other side. These bounds follow from the arithmetic; none was measured on a card.
"""

from __future__ import annotations

from hubmerge.merge.plan import Plan
from hubmerge.verify.foreign import Rounding, merge_depth, methods_of

ULPS = {"BF16": 1, "F16": 1, "F32": 8, "F64": 64}
"""Of the dtype of a result, for each merge within it."""

NEAR_TIES = 0.001
"""Most elements of a tensor that may have fallen to the other side."""

DECIDING = frozenset(
    {
        "arcee_fusion",
        "breadcrumbs_ties",
        "dare_ties",
        "della",
        "sce",
        "ties",
    }
)
"""Methods that decide by what they have computed; others decide by differences of stored values, which are exact."""


def card_rounding(plan: Plan) -> Rounding:
    """Returns how far values of a merge from a card may be from the plan's."""
    ulps = max((ULPS.get(tensor.info.dtype, 0) for tensor in plan.tensors), default=0)
    return Rounding(ulps * max(1, merge_depth(plan)), share=NEAR_TIES if DECIDING & methods_of(plan) else 0)
