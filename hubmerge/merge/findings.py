"""What planning has to say about tensors, gathered so that one mistake in 200 layers is one sentence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hubmerge.merge.layers import name_pattern

SHOWN_PROBLEMS = 20


@dataclass
class Findings:
    """Problems and notes, by the tensors that they are about.

    Attributes:
        hint: What to do about the problems, if there are any.
    """

    problems: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)
    hint: str | None = None

    def problem(self, tensor: str, sentence: str) -> None:
        """Records why a tensor cannot be made."""
        self.problems[name_pattern(tensor), sentence] += 1

    def note(self, tensor: str, sentence: str) -> None:
        """Records what a reader should know about a tensor."""
        self.notes[name_pattern(tensor), sentence] += 1


def sentences(findings: Counter[tuple[str, str]]) -> list[str]:
    """Returns one sentence for each finding, with the number of tensors that it is about."""
    lines = [f"{name}{f' ({count} tensors)' if count > 1 else ''}: {text}" for (name, text), count in findings.items()]
    hidden = len(lines) - SHOWN_PROBLEMS
    return lines if hidden <= 0 else [*lines[:SHOWN_PROBLEMS], f"and {hidden} more of this kind"]
