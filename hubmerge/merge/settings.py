"""A parameter's value for one tensor: a constant, a gradient over depth, or the first filter that matches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

Scalar = float | int | bool | str


@dataclass(frozen=True)
class Constant:
    """One value for every tensor."""

    value: Scalar


@dataclass(frozen=True)
class Gradient:
    """Values at equal distances from the first layer to the last.

    Attributes:
        values: At least one. Numbers are interpolated; strings and booleans are selected.
    """

    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Case:
    """One entry of a filter list.

    Attributes:
        substring: What a tensor's name must contain; None matches every tensor.
    """

    substring: str | None
    setting: Constant | Gradient

    def matches(self, tensor_name: str) -> bool:
        """Returns whether the entry is meant for that tensor."""
        return self.substring is None or self.substring in tensor_name


@dataclass(frozen=True)
class Filtered:
    """The first case whose filter matches wins."""

    cases: tuple[Case, ...]


Setting = Constant | Gradient | Filtered


def resolve(setting: Setting, *, tensor_name: str, depth: float) -> Scalar | None:
    """Returns a setting's value for one tensor, or None where no filter matches.

    Args:
        setting: What the recipe says.
        tensor_name: The name that filters are compared with.
        depth: Position within the slice, 0 at its first layer and 1 at its last.
    """
    match setting:
        case Constant(value):
            return value
        case Gradient(values):
            return _at(values, depth)
        case Filtered(cases):
            chosen = next((case.setting for case in cases if case.matches(tensor_name)), None)
            return None if chosen is None else resolve(chosen, tensor_name=tensor_name, depth=depth)


def layered(near: Setting, far: Setting) -> Setting:
    """Returns the setting that says what `near` says, and what `far` says where `near` says nothing."""
    if not isinstance(near, Filtered):
        return near
    return Filtered((*near.cases, *(far.cases if isinstance(far, Filtered) else (Case(None, far),))))


def _at(values: Sequence[Scalar], depth: float) -> Scalar:
    position = depth * (len(values) - 1)
    below = math.floor(position)
    if not _are_numbers(values):
        return values[below]
    above = min(below + 1, len(values) - 1)
    weight = position - below
    return (1 - weight) * values[below] + weight * values[above]


def _are_numbers(values: Sequence[Scalar]) -> TypeGuard[Sequence[float | int]]:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
