"""nearswap: takes the other model's value where it is near the base's, and moves towards it by at most t elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubmerge.merge.methods.gram import task_vectors
from hubmerge.merge.methods.method import Base, Block, Method, Parameter, Scope, Settings

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_DIFFERENCE = 1e-6
"""A smaller difference counts as this much, so that a t below it does not swap anything in full."""


def _combine(tensors: list[Tensor], settings: Settings, _state: Any, _block: Block) -> Tensor:
    """Adds δ·min(1, t / max(|δ|, 1e-6)) to the base, computed as δ·min(1, t / 1e-6) clamped to ±t."""
    t = float(settings.shared["t"])
    (delta,) = task_vectors(tensors)
    return tensors[0].add_(delta.mul_(min(1.0, t / SMALLEST_DIFFERENCE)).clamp_(-t, t))


def _check(settings: Settings) -> str | None:
    t = settings.shared["t"]
    return f"t is {t}, but must not be negative" if t < 0 else None


NEARSWAP = Method(
    name="nearswap",
    title="NearSwap",
    paper="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    summary="Moves each element of the base towards the other model by at most t.",
    parameters=(Parameter("t", Scope.SHARED, None, "Largest change of an element"),),
    base=Base.REQUIRED,
    least=2,
    most=2,
    combine=_combine,
    check=_check,
)
