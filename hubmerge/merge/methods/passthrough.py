"""passthrough: one model's tensor as it is, or scaled; what stacked ("franken") merges are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubmerge.merge.methods.method import Base, Block, Method, Parameter, Scope, Settings
from hubmerge.merge.native.kernels import WeightedSum

if TYPE_CHECKING:
    from torch import Tensor


def _combine(tensors: list[Tensor], settings: Settings, _state: Any, _block: Block) -> Tensor:
    (tensor,) = tensors
    return tensor.mul_(settings.inputs[0]["scale"])


def _compiled(settings: Settings, _state: Any) -> WeightedSum:
    return WeightedSum(settings.column("scale"))


def _is_copy(settings: Settings) -> bool:
    return settings.inputs[0]["scale"] == 1


PASSTHROUGH = Method(
    name="passthrough",
    title="Passthrough",
    paper=None,
    summary="One model's tensors unchanged, or multiplied by a number.",
    parameters=(Parameter("scale", Scope.MODEL, 1.0, "Factor on the tensor"),),
    base=Base.DONOR,
    least=1,
    most=1,
    combine=_combine,
    compiled=_compiled,
    is_copy=_is_copy,
)
