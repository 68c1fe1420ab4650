"""Merges of several sizes, whose cards are looked at."""

from __future__ import annotations

from dataclasses import replace

from hubmerge.card.facts import LicenceDecision, MergeFacts, Outcome, ParentFacts
from tests.card.facts import BASE, MONARCH
from tests.lineage.monarch import FOURTEEN

FOURTEEN_MODELS = tuple(
    ParentFacts(label=name, role="weight 0.08, density 0.5", repo_id=name, sha=f"{number:040x}", license="apache-2.0")
    for number, name in enumerate(FOURTEEN, start=0xABCDEF)
)
FOURTEEN_MERGED: MergeFacts = replace(
    MONARCH,
    repo_id="EmbeddedLLM/Mistral-7B-Merge-14-v0",
    title="Mistral-7B-Merge-14-v0",
    parents=(BASE, *FOURTEEN_MODELS),
    licence=LicenceDecision(
        license="apache-2.0",
        outcome=Outcome.DERIVED,
        reasons=("All parents are under the same licence, and so is the merge.",),
    ),
    notes=(),
)
