"""What an adapter keeps of a difference, by group of modules and on the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.extract.parts import Part
from hubmerge.extract.spool import Spooled


@dataclass(frozen=True)
class Outcome:
    """What became of one part.

    Attributes:
        rank: 0 if it became no factors.
        energy: Squared Frobenius norm of the difference; None if there is none to compute.
        lost: Of it what the adapter does not have.
        tensors: Of the adapter; none where the two models agree.
    """

    part: Part
    rank: int
    energy: float | None
    lost: float
    tensors: tuple[Spooled, ...]

    @property
    def is_changed(self) -> bool:
        """Whether the models differ here."""
        return self.energy is None or self.energy > 0


@dataclass(frozen=True)
class GroupReport:
    """Modules that differ by their layer only.

    Attributes:
        count: How many differ between the models.
        ranks: The least and the greatest; (0, 0) if they became no factors.
        how: "LoRA", "saved", or "left out".
        kept: Share of the energy, in [0, 1]; None where nothing could be compared.
    """

    group: str
    how: str
    count: int
    ranks: tuple[int, int]
    kept: float | None


@dataclass(frozen=True)
class Report:
    """What an adapter keeps.

    Attributes:
        groups: In the order of the model.
        relative_error: ‖(finetuned − base) − adapter‖ / ‖finetuned − base‖, Frobenius, over all that was compared.
        parameters: Numbers in the adapter.
    """

    groups: tuple[GroupReport, ...]
    relative_error: float
    parameters: int

    def as_json(self) -> dict[str, Any]:
        """Returns it as plain data."""
        groups = [
            {"group": g.group, "how": g.how, "count": g.count, "ranks": list(g.ranks), "energy_kept": g.kept}
            for g in self.groups
        ]
        return {"relative_error": self.relative_error, "parameters": self.parameters, "groups": groups}


def report(outcomes: Sequence[Outcome]) -> Report:
    """Returns what outcomes come to; modules in which the models agree are not mentioned."""
    changed = [outcome for outcome in outcomes if outcome.is_changed]
    grouped: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in changed:
        grouped.setdefault((outcome.part.group, _how(outcome)), []).append(outcome)
    energy, lost = _sums(changed)
    return Report(
        groups=tuple(_group(group, how, members) for (group, how), members in grouped.items()),
        relative_error=math.sqrt(lost / energy) if energy else 0.0,
        parameters=sum(math.prod(tensor.shape) for outcome in changed for tensor in outcome.tensors),
    )


def _how(outcome: Outcome) -> str:
    return "LoRA" if outcome.rank else "saved" if outcome.tensors else "left out"


def _group(group: str, how: str, members: Sequence[Outcome]) -> GroupReport:
    ranks = [member.rank for member in members]
    energy, lost = _sums(members)
    return GroupReport(group, how, len(members), (min(ranks), max(ranks)), 1 - lost / energy if energy else None)


def _sums(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    return math.fsum(each.energy or 0 for each in outcomes), math.fsum(each.lost for each in outcomes)
