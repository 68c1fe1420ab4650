"""What a verification found: one line a check, the tensors that differ, and the verdict that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Outcome(Enum):
    """How a check ended."""

    AGREES = "agrees"
    DIFFERS = "differs"
    UNCHECKED = "could not check"
    NOT_NEEDED = "not needed"


class Verdict(Enum):
    """What follows from all checks together; the value is the exit code."""

    PROVEN = 0
    UNCHECKED = 1
    DIFFERS = 3


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What, in a few words.
        detail: What was seen, a phrase without a full stop.
    """

    name: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True)
class TensorDifference:
    """A tensor whose stored values are not the computed ones.

    Attributes:
        elements: How many of those that were looked at differ by more than the tolerance.
        looked_at: How many were looked at.
        largest: Largest absolute difference; infinite where one of the two is not a number.
        ulps: The same in units of the last place of the dtype.
    """

    name: str
    elements: int
    looked_at: int
    largest: float
    ulps: float


@dataclass(frozen=True)
class SampleFacts:
    """Which weights were computed again.

    Attributes:
        seed: Chooses the same sample again; None where everything or a list of tensors was asked for.
        tensors: Distinct tensors looked at, of `tensors_in_all`.
        parent_bytes: Read of the parents' weights, of the `parent_bytes_in_all` that the merge needed.
        result_bytes: Read of the result's weights.
        unreached: Kinds of tensors of which none was looked at.
    """

    seed: int | None
    tensors: int
    tensors_in_all: int
    parent_bytes: int
    parent_bytes_in_all: int
    result_bytes: int
    unreached: tuple[str, ...]

    @property
    def is_everything(self) -> bool:
        """Whether nothing was left out."""
        return self.parent_bytes == self.parent_bytes_in_all and self.tensors == self.tensors_in_all


@dataclass(frozen=True)
class Provenance:
    """What a merge is made from and what it is.

    Attributes:
        recipe: As it was published.
        outputs: SHA-256 by path.
        materials: The parents and their files of weights, as in-toto resource descriptors.
    """

    recipe: str
    seed: int
    outputs: Mapping[str, str]
    materials: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Report:
    """A verification.

    Attributes:
        label: What was verified: `org/name@0123abc` or the folder.
        commit: None for a folder.
        made_by: The tool that published it.
        assumptions: What the verdict rests on besides the published files, one sentence each.
        tolerance_ulps: Most that values may differ by; 0 is bit for bit.
        sample: None where no weights were computed.
        provenance: None where nobody asked for it, or the plan could not be made again.
    """

    label: str
    commit: str | None
    made_by: str
    checks: tuple[Check, ...]
    assumptions: tuple[str, ...] = ()
    differences: tuple[TensorDifference, ...] = ()
    tolerance_ulps: float = 0
    sample: SampleFacts | None = None
    provenance: Provenance | None = None

    @property
    def verdict(self) -> Verdict:
        """Any difference outweighs what could not be checked, and that outweighs agreement."""
        return verdict_of(self.checks)


def verdict_of(checks: Sequence[Check]) -> Verdict:
    """Returns what follows from these checks."""
    outcomes = {check.outcome for check in checks}
    if Outcome.DIFFERS in outcomes:
        return Verdict.DIFFERS
    return Verdict.UNCHECKED if Outcome.UNCHECKED in outcomes else Verdict.PROVEN


def verdict_sentence(report: Report) -> str:
    """Returns the verdict for people, one line."""
    if report.verdict is Verdict.PROVEN:
        exactness = f"within {report.tolerance_ulps:g} ulp" if report.tolerance_ulps else "bit for bit"
        seen = "every tensor" if report.sample and report.sample.is_everything else report.checks[-1].detail
        return f"proven: {report.label} is what its recipe makes of its parents ({seen}, {exactness})"
    wanted = Outcome.DIFFERS if report.verdict is Verdict.DIFFERS else Outcome.UNCHECKED
    first = next(check for check in report.checks if check.outcome is wanted)
    return f"{wanted.value}: {report.label}, {first.name}: {first.detail}"


def report_as_json(report: Report) -> dict[str, Any]:
    """Returns the report as plain data."""
    return {
        "verdict": report.verdict.name.lower(),
        "model": report.label,
        "commit": report.commit,
        "made_by": report.made_by,
        "tolerance_ulps": report.tolerance_ulps,
        "assumptions": list(report.assumptions),
        "checks": [{"name": c.name, "outcome": c.outcome.value, "detail": c.detail} for c in report.checks],
        "differences": [_difference_entry(each) for each in report.differences],
        "sample": None if report.sample is None else _sample_entry(report.sample),
    }


def _difference_entry(difference: TensorDifference) -> dict[str, Any]:
    """Returns plain data; JSON has no infinity, so it is written as None."""
    return {
        "tensor": difference.name,
        "elements": difference.elements,
        "looked_at": difference.looked_at,
        "largest": _finite(difference.largest),
        "ulps": _finite(difference.ulps),
    }


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _sample_entry(sample: SampleFacts) -> dict[str, Any]:
    return {
        "seed": sample.seed,
        "tensors": sample.tensors,
        "tensors_in_all": sample.tensors_in_all,
        "parent_bytes": sample.parent_bytes,
        "parent_bytes_in_all": sample.parent_bytes_in_all,
        "result_bytes": sample.result_bytes,
        "unreached": list(sample.unreached),
    }
