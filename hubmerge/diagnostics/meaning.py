"""What statistics mean, in sentences; each rule is a function of its own, and each threshold says where it is from."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hubmerge.diagnostics.diagnostics import Cell, Diagnostics, NonFinite
from hubmerge.diagnostics.statistics import (
    Sums,
    add_up,
    cosines,
    distances,
    kept_shares,
    relative_norms,
    sign_conflict,
    task_vector_cosines,
)

UNRELATED_COSINE = 0.5
"""Weights trained apart are nearly orthogonal, whatever their size, and a fine-tune stays close to its base: the bound
lies far from both."""

EQUAL_DISTANCE = 1e-6
"""One bf16 value of a million changed by its last bit moves a tensor by 4e-6 of its length; equal tensors are at 0."""

ORTHOGONAL_COSINE = 0.1
"""Of task vectors. The error of a sample is about 0.01; tunings for different skills are reported to be close to
orthogonal (https://arxiv.org/abs/2212.04089)."""

ALIGNED_COSINE = 0.6
"""More than a third of each task vector (its square) lies along the other one."""

LONG_TASK_VECTOR = 4.0
"""Times the median of the others: with equal weights, it has more than nine tenths of the sum's squared length."""

CHANCE_MARGIN = 0.02
"""Rates of sign conflict nearer than this to chance are called chance; the error of a sample is ten times smaller."""

SHOWN = 3
"""Sentences of one kind; the models or pairs of models beyond are counted."""

LEAST_PERCENT = 0.01
"""Shares below it are said to be so."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models that are merged with each other in some layers.

    Attributes:
        models: The reference first.
        total: Of all matrices inside the layers.
        layers: Of each layer, all of its tensors.
    """

    models: tuple[str, ...]
    has_base: bool
    total: Sums
    layers: tuple[Sums, ...]

    @property
    def tuned(self) -> tuple[str, ...]:
        """The models but the base; all where there is none."""
        return self.models[1:] if self.has_base else self.models


def comparisons(diagnostics: Diagnostics) -> tuple[Comparison, ...]:
    """Returns what is compared with what, in order of the layers; usually one comparison."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in diagnostics.cells:
        groups.setdefault(cell.models, []).append(cell)
    return tuple(_comparison(cells) for cells in groups.values() if cells[0].sums.models > 1)


def sentences(diagnostics: Diagnostics) -> tuple[str, ...]:
    """Returns what the numbers mean, what should make people think first."""
    found = (sentence for each in comparisons(diagnostics) for rule in RULES for sentence in rule(each))
    return tuple(dict.fromkeys(found))


def warnings(diagnostics: Diagnostics) -> tuple[str, ...]:
    """Returns a sentence for every tensor that holds NaN or infinity."""
    return tuple(map(_non_finite, diagnostics.non_finite))


def unrelated(compared: Comparison) -> list[str]:
    """Says which models do not descend from the base, or from one another's."""
    cosine, names = cosines(compared.total), compared.models
    claim = "{1} is not tuned from {0}" if compared.has_base else "{0} and {1} are not tuned from the same base"
    found = [
        f"{claim.format(names[i], names[j])}: their weights have a cosine of {_hundredths(cosine[i, j])}."
        for i, j in _compared(compared)
        if cosine[i, j] < UNRELATED_COSINE
    ]
    return _first(found, "The same is true of {}.", has_base=compared.has_base)


def same_models(compared: Comparison) -> list[str]:
    """Says which models are equal in every layer, as far as it was looked at."""
    equal = _equal(compared.total) & np.logical_and.reduce([_equal(layer) for layer in compared.layers])
    names = compared.models
    pairs = [(i, j) for i, j in _pairs(names) if equal[i, j]]
    found = [_same(names[i], names[j], is_base=compared.has_base and i == 0) for i, j in pairs]
    return _first(found, "The same is true of {}.", has_base=False)


def equal_layers(compared: Comparison) -> list[str]:
    """Says which models are equal in some of the layers only."""
    counts = np.sum([_equal(layer) for layer in compared.layers], axis=0)
    total, names = len(compared.layers), compared.models
    found = [
        f"{names[j]} equals {'the base' if compared.has_base else names[i]} in {counts[i, j]} of {total} layers."
        for i, j in _compared(compared)
        if 0 < counts[i, j] < total
    ]
    return _first(found, "Some layers of {} are equal, too.", has_base=compared.has_base)


def long_task_vectors(compared: Comparison) -> list[str]:
    """Says whose task vector dwarfs the others'."""
    if not compared.has_base or len(compared.tuned) < 2:
        return []
    norms = [norm or 0.0 for norm in relative_norms(compared.total)]
    found = []
    for name, norm in zip(compared.tuned, norms, strict=True):
        others = statistics.median([each for other, each in zip(compared.tuned, norms, strict=True) if other != name])
        if others > 0 and norm / others >= LONG_TASK_VECTOR:
            whose = "the other's" if len(norms) == 2 else "the others'"
            found.append(f"The task vector of {name} is {norm / others:.0f} times as long as {whose}.")
    return found


def sizes(compared: Comparison) -> list[str]:
    """Says how far the models are from the base, or from each other."""
    names = compared.models
    if compared.has_base:
        norms = [norm for norm in relative_norms(compared.total) if norm]
        subject = f"The task vector of {names[1]} is" if len(names) == 2 else "The task vectors are"
        return [f"{subject} {_span(norms, _percent)} as long as the base's weights."] if norms else []
    apart = [distances(compared.total)[i, j] for i, j in _pairs(names)]
    subject = f"{names[0]} and {names[1]}" if len(names) == 2 else "The models"
    return [f"{subject} differ by {_span(apart, _percent)} of their weights' length."] if any(apart) else []


def angles(compared: Comparison) -> list[str]:
    """Says how the directions of the task vectors lie to each other."""
    if not compared.has_base or len(compared.tuned) < 2:
        return []
    matrix = task_vector_cosines(compared.total)
    values = [float(matrix[i, j]) for i, j in _pairs(compared.tuned) if not math.isnan(matrix[i, j])]
    if not values:
        return []
    whose = f"The task vectors of {' and '.join(compared.tuned)}" if len(compared.tuned) == 2 else "The task vectors"
    measured = f"(cosine{'s' * (len(values) > 1)} {_span(values, _hundredths)})"
    return [f"{whose} {_direction(values)} {measured}."]


def signs(compared: Comparison) -> list[str]:
    """Says how often task vectors disagree in sign, beside chance."""
    conflict = sign_conflict(compared.total) if compared.has_base else None
    if conflict is None:
        return []
    excess = conflict.rate - conflict.chance
    verdict = (
        "as often as by chance"
        if abs(excess) < CHANCE_MARGIN
        else f"{'more' if excess > 0 else 'less'} than by chance ({_percent(conflict.chance)})"
    )
    who = "both task vectors" if len(compared.tuned) == 2 else "two task vectors"
    return [f"Where {who} change an element, they pull it apart in {_percent(conflict.rate)} of cases, {verdict}."]


def kept(compared: Comparison) -> list[str]:
    """Says what the method keeps of the task vectors."""
    shares = [share for share in kept_shares(compared.total) or () if share is not None]
    return [f"The method keeps {_span(shares, _percent)} of the elements that tuning changed."] if shares else []


RULES = (unrelated, same_models, equal_layers, long_task_vectors, sizes, angles, signs, kept)
"""In the order in which people should read what they say."""


def _comparison(cells: Sequence[Cell]) -> Comparison:
    inside = [cell for cell in cells if cell.layer is not None] or list(cells)
    matrices = [cell for cell in inside if cell.role != "norm"] or inside
    by_layer: dict[int | None, Sums] = {}
    for cell in inside:
        known = by_layer.get(cell.layer)
        by_layer[cell.layer] = cell.sums if known is None else known + cell.sums
    first = cells[0]
    return Comparison(first.models, first.has_base, add_up(cell.sums for cell in matrices), tuple(by_layer.values()))


def _equal(sums: Sums) -> NDArray[np.bool_]:
    return distances(sums) < EQUAL_DISTANCE


def _pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    return list(combinations(range(len(names)), 2))


def _compared(compared: Comparison) -> list[tuple[int, int]]:
    """Returns the pairs that sentences are about: each model with the base, or with every other."""
    return [(i, j) for i, j in _pairs(compared.models) if i == 0 or not compared.has_base]


def _same(one: str, other: str, *, is_base: bool) -> str:
    if is_base:
        return f"{other} equals its base {one} in every layer, and adds nothing there."
    return f"{one} and {other} are equal in every layer."


def _first(found: list[str], rest: str, *, has_base: bool) -> list[str]:
    """Returns the first sentences, and one that counts the models, or pairs of models, of the others."""
    more = len(found) - SHOWN
    noun = "model" if has_base else "pair"
    return [*found[:SHOWN], rest.format(f"{more} more {noun}{'s' * (more > 1)}")] if more > 0 else found


def _direction(values: Sequence[float]) -> str:
    if all(abs(value) < ORTHOGONAL_COSINE for value in values):
        return "are nearly orthogonal: they change different things"
    if all(value > ALIGNED_COSINE for value in values):
        return "are aligned: they change much the same"
    if all(value < -ORTHOGONAL_COSINE for value in values):
        return "oppose each other"
    return "overlap in part"


def _non_finite(found: NonFinite) -> str:
    values = f"{found.count:,} value{'s' * (found.count > 1)}"
    if found.is_copied:
        return f"{found.tensor} holds NaN or infinity in {values}, as {found.culprits[0][0]} has it."
    origin = " and ".join(name for name, _ in found.culprits) or "the merge itself"
    return f"{found.tensor} holds NaN or infinity in {values}, from {origin}."


def _span(values: Sequence[float], text: Callable[[float], str]) -> str:
    low, high = text(min(values)), text(max(values))
    return low if low == high else f"{low} to {high}"


def _percent(share: float) -> str:
    if 0 < 100 * share < LEAST_PERCENT:
        return f"less than {LEAST_PERCENT} %"
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _hundredths(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00")
