"""multislerp and karcher: means of any number of models as directions on a sphere, at the mean of their norms.

Both end in a weighted sum of the models whose weights follow from the dot products between them; so one pass over the
tensors is all they need, and every iteration is done on a matrix as large as the number of models.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hubmerge.errors import MergeError
from hubmerge.merge.methods.gram import Matrix, all_operands, gram, task_vectors
from hubmerge.merge.methods.linear import adds_up_to_zero, normalized, weighted_sum
from hubmerge.merge.methods.method import Base, Block, Method, Operands, Parameter, Scope, Settings
from hubmerge.merge.native.kernels import WeightedSum

if TYPE_CHECKING:
    from torch import Tensor

Vector = NDArray[np.float64]


def _length(coefficients: Vector, dots: Matrix) -> float:
    """Returns ‖Σ cᵢvᵢ‖ from the dot products of the vᵢ."""
    return math.sqrt(max(0.0, float(coefficients @ dots @ coefficients)))


def _prepare_multislerp(operands: Operands, settings: Settings) -> list[float]:
    weights = settings.column("weight")
    if len(weights) == 1:
        return [1.0]
    if settings.shared["normalize_weights"]:
        weights = normalized(weights)
    vectors = task_vectors if operands.has_base else all_operands
    dots = gram(operands, len(weights), vectors=vectors)
    coefficients = _multislerp_coefficients(dots, np.array(weights), eps=float(settings.shared["eps"]))
    if coefficients is None:
        raise MergeError(f"{operands.name}: the directions of the models cancel, so multislerp has no mean of them")
    return [float(coefficient) for coefficient in coefficients]


def _multislerp_coefficients(dots: Matrix, weights: Vector, *, eps: float) -> Vector | None:
    """Returns the weights of the vᵢ in their mean on the sphere, None if more than two cancel.

    The tangent step of the formula is zero: vectors taken at the tip m of their own weighted mean have the mean tangent
    Σ wᵢ(uᵢ − (uᵢ·m)m) = ‖M‖m − ‖M‖m, where M = Σ wᵢuᵢ = ‖M‖m. What is left of it is the cosine of eps.
    """
    norms = np.sqrt(np.diag(dots))
    if not norms.any():
        return np.zeros_like(weights)
    directions = weights / (norms + eps)
    mean_length = _length(directions, dots)
    if mean_length < eps:
        return weights if len(weights) == 2 else None
    return directions * (math.cos(eps) * (weights @ norms) / mean_length)


def _combine_multislerp(tensors: list[Tensor], settings: Settings, coefficients: list[float], _block: Block) -> Tensor:
    if len(tensors) == len(settings.inputs):
        return weighted_sum(tensors, coefficients)
    return tensors[0].add_(weighted_sum(task_vectors(tensors), coefficients))


def _check_multislerp(settings: Settings) -> str | None:
    weights = settings.column("weight")
    if settings.shared["normalize_weights"] and adds_up_to_zero(weights):
        listed = ", ".join(map(str, weights))
        return f"the weights {listed} add up to 0, so normalize_weights cannot divide by their sum"
    if float(settings.shared["eps"]) < 0:
        return f"eps is {settings.shared['eps']}, but must not be negative"
    return None


def _prepare_karcher(operands: Operands, settings: Settings) -> list[float]:
    dots = gram(operands, len(settings.inputs))
    norms = np.sqrt(np.diag(dots))
    tolerance = float(settings.shared["tol"])
    valid = norms > tolerance
    coefficients = np.zeros(len(norms))
    if valid.any():
        units = (dots / np.outer(norms, norms).clip(min=np.finfo(float).tiny))[np.ix_(valid, valid)]
        mean = _karcher_mean(units, int(settings.shared["max_iter"]), tolerance)
        coefficients[valid] = norms.mean() * mean / norms[valid]
    return [1.0] if len(norms) == 1 else [float(coefficient) for coefficient in coefficients]


def _karcher_mean(cosines: Matrix, max_iterations: int, tolerance: float) -> Vector:
    """Returns the weights of the unit vectors in their Karcher mean, which has length 1.

    Args:
        cosines: Dot products of the unit vectors.
        max_iterations: Most steps.
        tolerance: A step shorter than this is the last, and angles smaller than this are zero.
    """
    count = len(cosines)
    mean = np.full(count, 1 / count)
    length = _length(mean, cosines)
    mean = np.eye(count)[0] if length < tolerance else mean / length
    for _ in range(max_iterations):
        step = _tangent(mean, cosines, tolerance)
        length = _length(step, cosines)
        if length < tolerance:
            break
        mean = math.cos(length) * mean + math.sin(length) / length * step
        mean /= _length(mean, cosines)
    return mean


def _tangent(mean: Vector, cosines: Matrix, tolerance: float) -> Vector:
    """Returns the weights of the mean tangent Σ αθᵢ/sin θᵢ (uᵢ − cos θᵢ m) at m."""
    projections = np.clip(cosines @ mean, -1, 1)
    angles = np.arccos(projections)
    sines = np.sin(angles)
    # At an angle of 0 there is nowhere to go; at π the direction is undefined, and the mean stays.
    stretches = np.divide(angles, sines, out=np.zeros_like(angles), where=sines > tolerance) / len(mean)
    return stretches - (stretches @ projections) * mean


def _combine_karcher(tensors: list[Tensor], _settings: Settings, coefficients: list[float], _block: Block) -> Tensor:
    return weighted_sum(tensors, coefficients)


def _compiled_karcher(_settings: Settings, coefficients: list[float]) -> WeightedSum:
    return WeightedSum(coefficients)


def _check_karcher(settings: Settings) -> str | None:
    for name in ("max_iter", "tol"):
        if settings.shared[name] < 0:
            return f"{name} is {settings.shared[name]}, but must not be negative"
    return None


MULTISLERP = Method(
    name="multislerp",
    title="Multi-SLERP",
    paper="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    summary="Weighted mean of the models' directions, or of their task vectors if there is a base, at their mean norm.",
    parameters=(
        Parameter("weight", Scope.TUNED, None, "Share of the model in the mean"),
        Parameter("normalize_weights", Scope.SHARED, True, "Divide the weights by their sum", bool),
        Parameter("eps", Scope.SHARED, 1e-8, "Smallest length that is not taken for zero"),
    ),
    base=Base.OPTIONAL,
    least=1,
    most=None,
    prepare=_prepare_multislerp,
    combine=_combine_multislerp,
    check=_check_multislerp,
)
KARCHER = Method(
    name="karcher",
    title="Karcher Mean",
    paper="https://arxiv.org/abs/2603.04972",
    summary="The direction with the least sum of squared angles to the models' directions, at their mean norm.",
    parameters=(
        Parameter("max_iter", Scope.SHARED, 10, "Most steps towards the mean", int),
        Parameter("tol", Scope.SHARED, 1e-5, "Length of a step that is small enough to stop"),
    ),
    base=Base.DONOR,
    least=1,
    most=None,
    prepare=_prepare_karcher,
    combine=_combine_karcher,
    compiled=_compiled_karcher,
    check=_check_karcher,
)
