"""Under which licence a merge is published: derived from all of its ancestors, or chosen by a person who says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hubmerge.card.facts import LicenceDecision, Outcome, ParentFacts, ParentLicence
from hubmerge.card.licence import join_licences, override_licence
from hubmerge.card.parents import parent_licence
from hubmerge.errors import LicenceError
from hubmerge.lineage.licence import lineage_licence
from hubmerge.merge.ancestry import Ancestry

DIRECT_PARENTS_ONLY = "Only the parents count here: what lies behind them was not looked at, as the publisher chose."

_HEADLINES = {
    Outcome.CONSENT: "no licence can be derived for this merge",
    Outcome.FORBIDDEN: "the licences behind this merge do not allow to publish it",
}


@dataclass(frozen=True)
class LicenceChoice:
    """A licence that a person chose in place of the one that follows from the ancestors'.

    Attributes:
        license: The Hub's id.
        reason: Printed in the card.
    """

    license: str
    reason: str


def decide_licence(
    parents: Sequence[ParentFacts],
    ancestry: Ancestry,
    *,
    choice: LicenceChoice | None = None,
    repo_id: str | None = None,
) -> LicenceDecision:
    """Returns the licence that follows from all ancestors, or the chosen one.

    Args:
        parents: All of them.
        ancestry: What lies behind them.
        choice: What a person chose, who may know more than cards say.
        repo_id: Where the merge is published; None for a folder, or if that is not known.
    """
    derived = _derived([parent_licence(parent) for parent in parents], ancestry, repo_id=repo_id)
    return derived if choice is None else override_licence(derived, license=choice.license, reason=choice.reason)


def check_publishable(decision: LicenceDecision) -> None:
    """Raises LicenceError, with all reasons and what to type, unless the licence of a merge is settled."""
    if decision.is_settled:
        return
    lines = "\n".join(f"  - {reason}" for reason in decision.reasons)
    raise LicenceError(f"{_HEADLINES[decision.outcome]}:\n{lines}", hint=_consent_hint(decision))


def unsettled(decision: LicenceDecision) -> tuple[str, ...]:
    """Returns what to tell somebody who makes a merge that could not be published; nothing if it could."""
    if decision.is_settled:
        return ()
    return (f"{_HEADLINES[decision.outcome].capitalize()}: {' '.join(decision.reasons)}",)


def _derived(parents: Sequence[ParentLicence], ancestry: Ancestry, *, repo_id: str | None) -> LicenceDecision:
    if ancestry.lineage is not None:
        return lineage_licence(ancestry.lineage, parents=parents, repo_id=repo_id)
    if ancestry.problem is not None:
        behind = ParentLicence(label="the ancestors of the parents", license=None, unseen=ancestry.problem)
        return join_licences([*parents, behind], repo_id=repo_id)
    decision = join_licences(parents, repo_id=repo_id)
    return decision if ancestry.is_wanted else replace(decision, reasons=(*decision.reasons, DIRECT_PARENTS_ONLY))


def _consent_hint(decision: LicenceDecision) -> str:
    return (
        "If you may publish it, choose its licence and say why; both stand in the card. Run the same command with "
        f'--license {decision.license or "ID"} --license-reason "..."'
    )
