"""slerp: the point at `t` of the way along the great circle from the base to the other model.

K. Shoemake, "Animating rotation with quaternion curves", 1985. The angle is that between the whole tensors taken as
vectors: one pass finds three dot products, and the result is a weighted sum whose two weights are plain numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hubmerge.lazy_torch import torch
from hubmerge.merge.methods.linear import weighted_sum
from hubmerge.merge.methods.method import Base, Block, Method, Operands, Parameter, Scope, Settings
from hubmerge.merge.native import kernels

if TYPE_CHECKING:
    from torch import Tensor

PARALLEL = 0.9995
"""Above this |cos θ| the arc is a straight line to within rounding, and sin θ too small to divide by."""
ZERO_NORM = 1e-8

Coefficients = tuple[float, float]


def cosine(dot: float, norm_a: float, norm_b: float) -> float:
    """Returns the cosine of the angle between two vectors, within [−1, 1] whatever rounding did."""
    return max(-1.0, min(1.0, dot / (norm_a * norm_b)))


def arc(cos_theta: float, t: float) -> Coefficients:
    """Returns the weights sin((1−t)θ)/sin θ and sin(tθ)/sin θ of a point on the arc."""
    theta = math.acos(cos_theta)
    return math.sin((1 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta)


def _dots(operands: Operands, block: Block) -> tuple[float, ...]:
    """Returns ⟨a, a⟩, ⟨a, b⟩ and ⟨b, b⟩ of a block: products in fp32, good to 1e-7 of ‖a‖‖b‖, added up in fp64."""
    stored = operands.stored(block)
    if stored is not None:
        return kernels.dots(*stored)
    a, b = operands.load(block)
    return tuple(torch.sum(x * y, dtype=torch.float64).item() for x, y in ((a, a), (a, b), (b, b)))


def _prepare(operands: Operands, settings: Settings) -> Coefficients:
    t = float(settings.shared["t"])
    by_block = [_dots(operands, block) for block in operands.blocks]
    aa, ab, bb = (math.fsum(dots) for dots in zip(*by_block, strict=True)) if by_block else (0.0, 0.0, 0.0)
    norm_a, norm_b = (norm if norm > ZERO_NORM else 1.0 for norm in (math.sqrt(aa), math.sqrt(bb)))
    cos_theta = cosine(ab, norm_a, norm_b)
    return (1 - t, t) if abs(cos_theta) > PARALLEL else arc(cos_theta, t)


def _combine(tensors: list[Tensor], _settings: Settings, coefficients: Coefficients, _block: Block) -> Tensor:
    return weighted_sum(tensors, coefficients)


def _compiled(_settings: Settings, coefficients: Coefficients) -> kernels.WeightedSum:
    return kernels.WeightedSum(coefficients)


SLERP = Method(
    name="slerp",
    title="SLERP",
    paper="https://en.wikipedia.org/wiki/Slerp",
    summary="Spherical interpolation between the base and one other model.",
    parameters=(Parameter("t", Scope.SHARED, None, "Position on the arc: 0 is the base, 1 the other model"),),
    base=Base.REQUIRED,
    least=2,
    most=2,
    prepare=_prepare,
    combine=_combine,
    compiled=_compiled,
)
