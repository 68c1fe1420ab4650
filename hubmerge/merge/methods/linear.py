"""linear: the weighted mean of the models, the "model soup"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubmerge.merge.methods.method import Base, Block, Method, Parameter, Scope, Settings
from hubmerge.merge.native.kernels import WeightedSum

if TYPE_CHECKING:
    from torch import Tensor

NEGLIGIBLE = 1e-8
"""A sum of weights this small beside the largest weight is rounding noise, not a divisor."""


def adds_up_to_zero(weights: Sequence[float]) -> bool:
    """Returns whether weights cancel, so that nothing can be divided by their sum."""
    return abs(math.fsum(weights)) <= NEGLIGIBLE * max(map(abs, weights))


def normalized(weights: Sequence[float]) -> list[float]:
    """Returns the weights divided by their sum."""
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def weighted_sum(tensors: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """Returns Σ cᵢ·xᵢ in the memory of the first tensor."""
    first, *others = tensors
    first.mul_(coefficients[0])
    for tensor, coefficient in zip(others, coefficients[1:], strict=True):
        first.add_(tensor, alpha=coefficient)
    return first


def _coefficients(settings: Settings) -> list[float]:
    weights = settings.column("weight")
    return normalized(weights) if settings.shared["normalize"] else weights


def _combine(tensors: list[Tensor], settings: Settings, _state: Any, _block: Block) -> Tensor:
    return weighted_sum(tensors, _coefficients(settings))


def _compiled(settings: Settings, _state: Any) -> WeightedSum:
    return WeightedSum(_coefficients(settings))


def _check(settings: Settings) -> str | None:
    weights = settings.column("weight")
    if settings.shared["normalize"] and adds_up_to_zero(weights):
        return f"the weights {', '.join(map(str, weights))} add up to 0, so normalize cannot divide by their sum"
    return None


def _is_copy(settings: Settings) -> bool:
    return _check(settings) is None and _coefficients(settings) == [1.0]


LINEAR = Method(
    name="linear",
    title="Linear",
    paper="https://arxiv.org/abs/2203.05482",
    summary="Weighted mean of the models.",
    parameters=(
        Parameter("weight", Scope.MODEL, None, "Share of the model in the sum"),
        Parameter("normalize", Scope.SHARED, True, "Divide by the sum of the weights", bool),
    ),
    base=Base.DONOR,
    least=1,
    most=None,
    combine=_combine,
    compiled=_compiled,
    check=_check,
    is_copy=_is_copy,
)
