"""ram and ramplus_tl: elements that several models changed are averaged over those models, others are taken in full.

"Reinforced Agent Merging", https://arxiv.org/abs/2601.13572.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubmerge.lazy_torch import torch
from hubmerge.merge.methods.gram import task_vectors
from hubmerge.merge.methods.method import Base, Block, Method, Operands, Parameter, Scope, Settings

if TYPE_CHECKING:
    from torch import Tensor


def _active(tensors: list[Tensor], settings: Settings) -> list[Tensor]:
    """Returns the task vectors with changes of at most epsilon set to zero, in the memory of the tensors."""
    epsilon = float(settings.shared["epsilon"])
    return [torch.hardshrink(delta, epsilon, out=delta) for delta in task_vectors(tensors)]


def _contributors(deltas: list[Tensor]) -> Tensor:
    """Returns how many task vectors are not zero at each element."""
    count, changed = torch.zeros_like(deltas[0]), torch.empty_like(deltas[0])
    for delta in deltas:
        count.add_(torch.ne(delta, 0, out=changed))
    return count


def _is_unique(count: Tensor) -> Tensor:
    """Returns 1 where exactly one model changed an element, else 0."""
    return torch.eq(count, 1, out=torch.empty_like(count))


def _combine_ram(tensors: list[Tensor], settings: Settings, _state: Any, _block: Block) -> Tensor:
    base, deltas = tensors[0], _active(tensors, settings)
    count = _contributors(deltas).clamp_min_(1)
    for delta in deltas:
        base.addcdiv_(delta, count)
    return base


def _prepare_plus(operands: Operands, settings: Settings) -> list[float]:
    """Returns the factor on what each model alone changed, 1 + r·clip(shared / unique, 0, alpha) of element counts."""
    shared, unique = [0.0] * len(settings.inputs), [0.0] * len(settings.inputs)
    for block in operands.blocks:
        deltas = _active(operands.load(block), settings)
        is_unique = _is_unique(_contributors(deltas))
        for index, delta in enumerate(deltas):
            changed = torch.ne(delta, 0, out=delta)
            active, alone = changed.sum().item(), changed.mul_(is_unique).sum().item()
            unique[index] += alone
            shared[index] += active - alone
    r, alpha, epsilon = (float(settings.shared[name]) for name in ("r", "alpha", "epsilon"))
    # Without unique elements the factor has nothing to act on.
    overlaps = [s / max(u, epsilon) if u else 0.0 for s, u in zip(shared, unique, strict=True)]
    return [1 + r * min(overlap, alpha) for overlap in overlaps]


def _combine_plus(tensors: list[Tensor], settings: Settings, factors: list[float], _block: Block) -> Tensor:
    base, deltas = tensors[0], _active(tensors, settings)
    count = _contributors(deltas)
    is_unique = _is_unique(count)
    count.clamp_min_(1)
    for delta, factor in zip(deltas, factors, strict=True):
        base.addcdiv_(delta, count).addcmul_(delta, is_unique, value=factor - 1)
    return base


def _check(settings: Settings) -> str | None:
    for name in ("alpha", "epsilon"):
        if settings.shared.get(name, 0) < 0:
            return f"{name} is {settings.shared[name]}, but must not be negative"
    return None


_EPSILON = Parameter("epsilon", Scope.SHARED, 1e-5, "Largest change of an element that counts as none")

RAM = Method(
    name="ram",
    title="Reinforced Agent Merging",
    paper="https://arxiv.org/abs/2601.13572",
    summary="Adds each changed element to the base, averaged over the models that changed it.",
    parameters=(_EPSILON,),
    base=Base.REQUIRED,
    least=2,
    most=None,
    combine=_combine_ram,
    check=_check,
)
RAMPLUS_TL = Method(
    name="ramplus_tl",
    title="Reinforced Agent Merging Plus (Tensor-Local)",
    paper="https://arxiv.org/abs/2601.13572",
    summary="As ram, with what only one model changed amplified, the more so the larger its overlap with other models.",
    parameters=(
        Parameter("r", Scope.SHARED, 0.1, "Strength of the amplification"),
        Parameter("alpha", Scope.SHARED, 0.2, "Largest overlap, shared over unique elements, that counts"),
        _EPSILON,
    ),
    base=Base.REQUIRED,
    least=2,
    most=None,
    prepare=_prepare_plus,
    combine=_combine_plus,
    check=_check,
)
