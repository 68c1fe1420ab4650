"""SCE: select the elements on which the models differ most, calculate each model's weight, erase minority directions.

F. Wan et al., "FuseChat: Knowledge Fusion of Chat Models", https://arxiv.org/abs/2408.07990.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubmerge.lazy_torch import torch
from hubmerge.merge.methods.consensus import elected_signs, keep_elected, kept_weights
from hubmerge.merge.methods.gram import task_vectors
from hubmerge.merge.methods.linear import weighted_sum
from hubmerge.merge.methods.method import Base, Block, Floats, Method, Operands, Parameter, Scope, Settings
from hubmerge.merge.methods.selection import Cut, Measured, Query, find_cuts, keep_largest

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_ENERGY = 1e-6
"""Below this sum of mean squares the models count as equal."""
SMALLEST_WEIGHT = 1e-6
"""Least sum of weights that a change is divided by."""

NOTHING = Cut(math.inf, 0)


@dataclass(frozen=True)
class Selection:
    """What SCE finds in whole tensors.

    Attributes:
        cut: The largest variances, None if all elements are selected.
        weights: The models' weights.
    """

    cut: Cut | None
    weights: list[float]


def _variances(deltas: list[Tensor]) -> Tensor:
    """Returns the variance over models of each element.

    Rounded from fp64, so that the same changes in another order of models give equal variances.
    """
    first, *others = (delta.double() for delta in deltas)
    total, squares = torch.zeros_like(first), torch.zeros_like(first)
    for other in others:
        other.sub_(first)  # the variance of differences, so that equal changes have none at all
        total.add_(other)
        squares.addcmul_(other, other)
    mean = total.div_(len(deltas))
    return squares.div_(len(deltas)).addcmul_(mean, mean, value=-1).to(deltas[0].dtype)


def _select(deltas: list[Tensor], cut: Cut | None, block: Block) -> list[Tensor]:
    """Clears the elements that are not selected, in place."""
    if cut is not None:
        selected = keep_largest(_variances(deltas), block, cut=cut).sign_()
        for delta in deltas:
            delta.mul_(selected)
    return deltas


def _prepare(operands: Operands, settings: Settings) -> Selection:
    cut = _cut(operands, float(settings.shared["select_topk"]))
    squares = [0.0] * len(settings.inputs)
    for block in operands.blocks:
        for index, delta in enumerate(_select(task_vectors(operands.load(block)), cut, block)):
            squares[index] += delta.square_().sum().item()
    return Selection(cut, _weights([square / max(1, math.prod(operands.shape)) for square in squares]))


def _cut(operands: Operands, share: float) -> Cut | None:
    """Returns the cut that selects this share of the elements whose variance is not zero."""
    if share >= 1:
        return None
    varying = sum(
        int(_variances(task_vectors(operands.load(block))).count_nonzero().item()) for block in operands.blocks
    )
    query = Query(0, int(varying * share))
    if query.rank <= 0:
        return NOTHING
    variances = Measured(operands, lambda tensors, _block: [_variances(task_vectors(tensors))])
    return find_cuts(operands, variances, [query])[query]


def _weights(energies: list[float]) -> list[float]:
    """Returns each model's share of the sum of mean squares, equal shares if there is next to nothing."""
    total = math.fsum(energies)
    if total < SMALLEST_ENERGY:
        return [1 / len(energies)] * len(energies)
    return [energy / total for energy in energies]


def _combine(tensors: list[Tensor], _settings: Settings, selection: Selection, block: Block) -> Tensor:
    base, deltas = tensors[0], _select(task_vectors(tensors), selection.cut, block)
    equal = [1.0] * len(deltas)
    signs = elected_signs(deltas, equal)
    keep_elected(deltas, equal, signs)
    divisor = kept_weights(deltas, selection.weights).clamp_min_(SMALLEST_WEIGHT)
    return base.addcdiv_(weighted_sum(deltas, selection.weights).mul_(signs), divisor)


def _thinned(operands: Operands, selection: Selection, block: Block) -> list[Floats]:
    return [delta.numpy(force=True) for delta in _select(task_vectors(operands.load(block)), selection.cut, block)]


SCE = Method(
    name="sce",
    title="SCE",
    paper="https://arxiv.org/abs/2408.07990",
    summary="Adds the task vectors where they vary most, weighted by energy, without what is against the elected sign.",
    parameters=(
        Parameter("select_topk", Scope.SHARED, 1.0, "Share of the varying elements that is selected, by variance"),
        Parameter("int8_mask", Scope.SHARED, False, "Accepted, without effect on the result", bool),
    ),
    base=Base.REQUIRED,
    least=1,
    most=None,
    prepare=_prepare,
    combine=_combine,
    thinned=_thinned,
)
