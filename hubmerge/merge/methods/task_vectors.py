"""Task arithmetic and its descendants: what fine-tuning changed, made sparse, weighted, summed and added to the base.

δᵢ = xᵢ − base → sparse δᵢ → × wᵢ → (elect a sign per element, keep what has it) → Σ → (÷ Σ wᵢ) → × λ → + base
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hubmerge.merge.methods.consensus import elected_signs, keep_elected, kept_weights
from hubmerge.merge.methods.della import by_rank, check_probabilities
from hubmerge.merge.methods.gram import task_vectors
from hubmerge.merge.methods.linear import weighted_sum
from hubmerge.merge.methods.method import Base, Block, Check, Floats, Method, Operands, Parameter, Scope, Settings
from hubmerge.merge.methods.sparsify import (
    Keep,
    KeepAll,
    Sparsifier,
    by_chance,
    by_magnitude,
    l1_ratios,
    rules_of,
    whole,
    without_outliers,
)
from hubmerge.merge.native import kernels
from hubmerge.merge.native.kernels import Election, TaskVectorSum

if TYPE_CHECKING:
    from torch import Tensor

ZERO_WEIGHT = 1e-8
"""A sum of weights below this divides nothing."""


@dataclass(frozen=True)
class SparseVectors:
    """How the task vectors of one tensor are thinned out.

    Attributes:
        keeps: What is kept, one a task vector.
        scales: What restores the sum of magnitudes, one a task vector.
    """

    keeps: list[Keep]
    scales: list[float]

    def of(self, tensors: list[Tensor], block: Block) -> list[Tensor]:
        """Returns one block of the thinned task vectors, not yet rescaled, in the memory of the tensors."""
        return [keep(delta, block) for delta, keep in zip(task_vectors(tensors), self.keeps, strict=True)]

    def scaled(self, weights: list[float]) -> list[float]:
        """Returns the weights with the rescaling in them."""
        return [weight * scale for weight, scale in zip(weights, self.scales, strict=True)]


def _prepare(operands: Operands, settings: Settings, *, sparsifier: Sparsifier) -> SparseVectors:
    keeps = sparsifier(operands, settings)
    if settings.shared["rescale"] and any(keep != KeepAll() for keep in keeps):
        return SparseVectors(keeps, l1_ratios(operands, keeps))
    return SparseVectors(keeps, [1.0] * len(keeps))


def _coefficients(settings: Settings, sparse: SparseVectors) -> list[float]:
    """Returns what to multiply each task vector by where all of them are added up."""
    weights = settings.column("weight")
    total = math.fsum(weights)
    divisor = total if settings.shared["normalize"] and abs(total) >= ZERO_WEIGHT else 1.0
    factor = float(settings.shared["lambda"]) / divisor
    return [weight * factor for weight in sparse.scaled(weights)]


def _combine_all(tensors: list[Tensor], settings: Settings, sparse: SparseVectors, block: Block) -> Tensor:
    base = tensors[0]
    for delta, coefficient in zip(sparse.of(tensors, block), _coefficients(settings, sparse), strict=True):
        base.add_(delta, alpha=coefficient)
    return base


def _compiled_all(settings: Settings, sparse: SparseVectors) -> TaskVectorSum | None:
    rules = rules_of(sparse.keeps)
    return TaskVectorSum(rules, _coefficients(settings, sparse)) if rules else None


def _combine_elected(tensors: list[Tensor], settings: Settings, sparse: SparseVectors, block: Block) -> Tensor:
    base, weights = tensors[0], settings.column("weight")
    deltas, coefficients = sparse.of(tensors, block), sparse.scaled(weights)
    signs = elected_signs(deltas, coefficients)
    keep_elected(deltas, coefficients, signs)
    factor = float(settings.shared["lambda"])
    if not settings.shared["normalize"]:
        return base.addcmul_(weighted_sum(deltas, coefficients), signs, value=factor)
    divisor = kept_weights(deltas, weights)
    return base.addcdiv_(weighted_sum(deltas, coefficients).mul_(signs), divisor, value=factor)


def _compiled_elected(settings: Settings, sparse: SparseVectors) -> TaskVectorSum | None:
    rules, weights = rules_of(sparse.keeps), settings.column("weight")
    election = Election(
        factor=float(settings.shared["lambda"]), weights=weights if settings.shared["normalize"] else None
    )
    return TaskVectorSum(rules, sparse.scaled(weights), election) if rules else None


def _thinned(operands: Operands, sparse: SparseVectors, block: Block) -> list[Floats]:
    stored, rules = operands.stored(block), rules_of(sparse.keeps)
    if stored and rules:
        return [*kernels.thinned(stored, rules, first=block.start)]
    return [delta.numpy(force=True) for delta in sparse.of(operands.load(block), block)]


def _check_gamma(settings: Settings) -> str | None:
    for gamma in settings.column("gamma"):
        if not 0 <= gamma <= 1:
            return f"gamma is {gamma}, but a share lies between 0 and 1"
    return None


def _method(
    name: str,
    title: str,
    paper: str,
    summary: str,
    sparsifier: Sparsifier,
    *,
    elect: bool,
    normalize: bool,
    rescale: bool,
    own: tuple[Parameter, ...] = (),
    check: Check | None = None,
) -> Method:
    """Builds a method of the family from its sparsifier, its defaults and the parameters that only it has."""
    compiled = _compiled_elected if elect else _compiled_all
    return Method(
        name=name,
        title=title,
        paper=f"https://arxiv.org/abs/{paper}",
        summary=summary,
        parameters=(
            Parameter("weight", Scope.TUNED, None, "Factor on the model's task vector"),
            Parameter("density", Scope.TUNED, 1.0, "Share of the task vector's elements that is kept"),
            *own,
            Parameter("lambda", Scope.SHARED, 1.0, "Factor on the sum of the task vectors"),
            Parameter("normalize", Scope.SHARED, normalize, "Divide by the sum of the weights that took part", bool),
            Parameter("rescale", Scope.SHARED, rescale, "Restore each sparse task vector's sum of magnitudes", bool),
            Parameter("int8_mask", Scope.SHARED, False, "Accepted, without effect on the result", bool),
        ),
        base=Base.REQUIRED,
        least=1,
        most=None,
        prepare=partial(_prepare, sparsifier=sparsifier),
        combine=_combine_elected if elect else _combine_all,
        compiled=None if sparsifier is by_rank else compiled,  # ranks need sorting
        check=check,
        thinned=None if sparsifier is whole else _thinned,
    )


_EPSILON = Parameter("epsilon", Scope.TUNED, 0.15, "Half the range of the probabilities to be kept, around density")
_GAMMA = Parameter("gamma", Scope.TUNED, 0.01, "Share of the task vector's largest elements that is dropped")

TASK_ARITHMETIC = _method(
    "task_arithmetic",
    "Task Arithmetic",
    "2212.04089",
    "Adds the weighted task vectors to the base.",
    whole,
    elect=False,
    normalize=False,
    rescale=False,
)
TIES = _method(
    "ties",
    "TIES",
    "2306.01708",
    "Keeps the largest elements of each task vector, elects a sign for each element and averages what agrees with it.",
    by_magnitude,
    elect=True,
    normalize=True,
    rescale=False,
)
DARE_LINEAR = _method(
    "dare_linear",
    "Linear DARE",
    "2311.03099",
    "Drops random elements of each task vector, rescales the rest and adds the weighted task vectors to the base.",
    by_chance,
    elect=False,
    normalize=False,
    rescale=True,
)
DARE_TIES = _method(
    "dare_ties",
    "DARE TIES",
    "2311.03099",
    "Drops random elements of each task vector, rescales the rest and adds up what agrees with the elected signs.",
    by_chance,
    elect=True,
    normalize=False,
    rescale=True,
)
BREADCRUMBS = _method(
    "breadcrumbs",
    "Model Breadcrumbs",
    "2312.06795",
    "Drops the largest and the smallest elements of each task vector and adds the weighted rest to the base.",
    without_outliers,
    elect=False,
    normalize=False,
    rescale=False,
    own=(_GAMMA,),
    check=_check_gamma,
)
BREADCRUMBS_TIES = _method(
    "breadcrumbs_ties",
    "Model Breadcrumbs with TIES",
    "2312.06795",
    "Drops the largest and the smallest elements of each task vector and adds up what agrees with the elected signs.",
    without_outliers,
    elect=True,
    normalize=False,
    rescale=False,
    own=(_GAMMA,),
    check=_check_gamma,
)
DELLA = _method(
    "della",
    "DELLA",
    "2406.11617",
    "Drops elements of each task vector at random, small ones likelier, rescales and averages what agrees in sign.",
    by_rank,
    elect=True,
    normalize=True,
    rescale=True,
    own=(_EPSILON,),
    check=check_probabilities,
)
DELLA_LINEAR = _method(
    "della_linear",
    "Linear DELLA",
    "2406.11617",
    "Drops elements of each task vector at random, small ones likelier, rescales and adds up the weighted rest.",
    by_rank,
    elect=False,
    normalize=False,
    rescale=True,
    own=(_EPSILON,),
    check=check_probabilities,
)
