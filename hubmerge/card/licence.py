"""The licence of a merge, derived from what its ancestors declare: all of them count, and nothing is guessed.

The rules form a semilattice: neither order nor grouping nor repetition of the ancestors changes the result, and one
more ancestor never makes it laxer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from hubmerge.card.facts import LicenceDecision, LicenceTerms, Outcome, ParentLicence
from hubmerge.card.licence_ids import IDS, Family, family_of, link_of, normalise
from hubmerge.card.licence_notices import abridged, notices_for, warnings_for

LICENCE_FILE = "LICENSE.md"
"""Quotes all licences of a merge that no one licence covers; the Hub shows a link to it."""


@dataclass(frozen=True)
class _Declared:
    """One licence and the models that declare it; `id` is None if it cannot be told which licence it is.

    Attributes:
        text: What they declare that is no known licence.
        unseen: Why it is not known what they declare.
        models: Name and page of each.
    """

    id: str | None
    name: str | None
    link: str | None
    family: Family
    text: str
    unseen: str | None
    models: tuple[tuple[str, str | None], ...]

    @property
    def title(self) -> str:
        """The licence as sentences call it."""
        return self.name or self.id or self.text

    @property
    def key(self) -> tuple[str | None, ...]:
        """What two declarations of the same licence share."""
        return self.id, self.name, self.text, self.unseen

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the models."""
        return tuple(label for label, _ in self.models)


_EACH_DEMANDS_THE_WHOLE = "each demands that the whole work be under itself"
_NO_FURTHER_LIMITS = "the one allows no restrictions beyond its own, and the other brings some"
_NO_COMMERCIAL_BAN = "the one allows commercial use of the whole work, and the other forbids it"
_ONE_WAY = "only cc-by-sa-4.0 may be put under a GPL, and only under gpl-3.0, so that a person has to look"
"""https://creativecommons.org/compatiblelicenses/"""
_NO_COMMON_LICENCE = "both sets of terms apply together, and no one licence states them"

_P, _BY, _NC, _SA, _NC_SA, _GPL, _USE, _OWN = list(Family)[:8]
_FORBIDDEN_PAIRS = {
    _NO_COMMERCIAL_BAN: ((_NC, _SA), (_NC, _GPL)),
    _EACH_DEMANDS_THE_WHOLE: ((_SA, _NC_SA), (_NC_SA, _GPL)),
    _NO_FURTHER_LIMITS: ((_SA, _USE), (_SA, _OWN), (_NC_SA, _USE), (_NC_SA, _OWN), (_GPL, _USE)),
}
_CONSENT_PAIRS = (
    *((_P, _OWN), (_BY, _OWN), (_NC, _OWN), (_GPL, _OWN), (_USE, _OWN), (_OWN, _OWN)),
    *((_NC, _USE), (_USE, _USE)),
)
_CLASHES = {
    **{frozenset(pair): (Outcome.FORBIDDEN, why) for why, pairs in _FORBIDDEN_PAIRS.items() for pair in pairs},
    **{frozenset(pair): (Outcome.CONSENT, _NO_COMMON_LICENCE) for pair in _CONSENT_PAIRS},
    frozenset({_SA, _GPL}): (Outcome.CONSENT, _ONE_WAY),
}
"""Families of two unlike licences that no one licence covers; any other pair fits, and its higher family decides."""

_LATEST = {
    Family.ATTRIBUTION: "cc-by-4.0",
    Family.NONCOMMERCIAL: "cc-by-nc-4.0",
    Family.SHARE_ALIKE: "cc-by-sa-4.0",
    Family.NONCOMMERCIAL_SHARE_ALIKE: "cc-by-nc-sa-4.0",
}


def join_licences(parents: Sequence[ParentLicence], *, repo_id: str | None = None) -> LicenceDecision:
    """Returns the licence of a merge with all these ancestors, base models included.

    Args:
        parents: At least one, the nearest first.
        repo_id: The merge's own id, checked against the licences that want a part in the name.
    """
    assert parents
    declared = _distinct(parents)
    problems = [*_lone_problems(declared), *_clashes(declared)]
    reasons = tuple(_declaration(licence) for licence in declared)
    known = {licence.id: licence.labels for licence in declared if licence.id}
    found = LicenceDecision(
        license=None,
        outcome=Outcome.FORBIDDEN,
        reasons=(*reasons, *(sentence for _, sentence in problems)),
        notices=notices_for(known),
        warnings=warnings_for(known, repo_id=repo_id),
        terms=tuple(_terms(licence) for licence in declared),
    )
    if any(outcome is Outcome.FORBIDDEN for outcome, _ in problems):
        return found
    return _undecided(found, declared) if problems else _derived(found, declared)


def licence_families(parent: ParentLicence) -> tuple[Family, ...]:
    """Returns the family of each licence that a parent declares; UNKNOWN for none."""
    return tuple(_declared(text.strip(), parent).family for text in (parent.license or "").split(","))


def override_licence(
    decision: LicenceDecision, *, license: str, reason: str, name: str | None = None, link: str | None = None
) -> LicenceDecision:
    """Returns the decision with the licence that a person chose, whatever was derived; what was found stays in it.

    Args:
        decision: What `join_licences` returned.
        license: A licence in any usual spelling; text that is no licence of the Hub becomes `other` with that name.
        reason: Why it may be so, in the person's words.
        name: `license_name` of an `other` licence.
        link: `license_link` of an `other` licence.
    """
    chosen = normalise(license)
    if chosen is not None:
        name = link = None
    elif license.strip().lower() == "other":
        name, link = name or decision.name, link or decision.link
    else:
        name = name or license.strip()
    overridden = replace(decision, outcome=Outcome.OVERRIDDEN, override_reason=reason.strip())
    return _with_licence(overridden, chosen or "other", name=name, link=link)


def _distinct(parents: Sequence[ParentLicence]) -> list[_Declared]:
    """Returns every licence once, in order of appearance, with all models that declare it."""
    found: dict[tuple[str | None, ...], _Declared] = {}
    for parent in parents:
        for text in (parent.license or "").split(","):
            declared = _declared(text.strip(), parent)
            known = found.get(declared.key, replace(declared, models=()))
            models = dict.fromkeys((*known.models, *declared.models))
            found[declared.key] = replace(known, models=tuple(models))
    return list(found.values())


def _declared(text: str, parent: ParentLicence) -> _Declared:
    name, models = (parent.name or "").strip(), ((parent.label, parent.page),)
    is_other = text.lower() == "other"
    licence = normalise(name if is_other else text)
    if licence is not None:
        return _Declared(licence, None, link_of(licence), family_of(licence), "", None, models)
    if is_other and name.lower() not in ("", "other", "unknown"):
        return _Declared("other", name, parent.link, Family.USE_RESTRICTED, "", None, models)
    return _Declared(None, None, None, Family.UNKNOWN, text, parent.unseen, models)


def _declaration(licence: _Declared) -> str:
    verb = "declares" if len(licence.labels) == 1 else "declare"
    who = f"{abridged(licence.labels)} {verb}"
    if licence.unseen is not None:
        return f"Nothing is known of {abridged(licence.labels)}: {licence.unseen}."
    if licence.id is not None:
        return f"{who} {licence.title}."
    if licence.text.lower() in ("", "unknown"):
        return f"{who} no licence."
    if licence.text.lower() == "other":
        return f'{who} "other" without a name.'
    return f'{who} "{licence.text}", which is no licence id of the Hub.'


def _lone_problems(declared: Sequence[_Declared]) -> list[tuple[Outcome, str]]:
    """Returns what stands in the way whatever the other parents declare."""
    problems = []
    for licence in declared:
        if licence.family is Family.NO_DERIVATIVES:
            sentence = f"{licence.title} allows no derivatives, and a merge is a derivative."
            problems.append((Outcome.FORBIDDEN, sentence))
        if licence.family is Family.UNKNOWN:
            sentence = f"Without a known licence of {abridged(licence.labels)} none can be derived for the merge."
            problems.append((Outcome.CONSENT, sentence))
    return problems


def _clashes(declared: Sequence[_Declared]) -> list[tuple[Outcome, str]]:
    """Returns what stands in the way between two licences, for every pair."""
    problems = []
    for first, second in combinations(declared, 2):
        if clash := _clash(first, second):
            outcome, why = clash
            problems.append((outcome, f"{first.title} and {second.title} do not join: {why}."))
    return problems


def _clash(first: _Declared, second: _Declared) -> tuple[Outcome, str] | None:
    if first is second:
        return None
    return _CLASHES.get(frozenset({first.family, second.family}))


def _winner(declared: Sequence[_Declared]) -> tuple[_Declared, str]:
    """Returns the licence that covers all of these, none of which clash, and a sentence that says why."""
    if len(declared) == 1:
        return declared[0], "All parents are under the same licence, and so is the merge."
    family = max(licence.family for licence in declared)
    members = [licence for licence in declared if licence.family is family]
    if family in (Family.PERMISSIVE, Family.COPYLEFT):
        winner = min(members, key=lambda licence: IDS[family].index(licence.title))
    else:
        winner = replace(members[0], id=_LATEST.get(family, members[0].id))
    if family is Family.PERMISSIVE:
        return winner, f"All of these are permissive; {winner.title} has the most conditions of them."
    return winner, f"{winner.title} asks the most, and the others allow works under it."


def _derived(found: LicenceDecision, declared: Sequence[_Declared]) -> LicenceDecision:
    winner, why = _winner(declared)
    derived = replace(found, outcome=Outcome.DERIVED, reasons=(*found.reasons, why))
    return _with_licence(derived, winner.id or "other", name=winner.name, link=winner.link)


def _undecided(found: LicenceDecision, declared: Sequence[_Declared]) -> LicenceDecision:
    """Returns a decision that waits for a person: the terms that clash under one name, or none if some are unknown."""
    consent = replace(found, outcome=Outcome.CONSENT)
    if any(licence.family is Family.UNKNOWN for licence in declared):
        return consent
    parts = [licence.title for licence in declared if any(_clash(licence, other) for other in declared)]
    return _with_licence(consent, "other", name="-and-".join(parts), link=None)


def _with_licence(decision: LicenceDecision, licence: str, *, name: str | None, link: str | None) -> LicenceDecision:
    """Returns the decision for a licence; of those that the Hub knows it wants neither name nor link."""
    if licence != "other":
        return replace(decision, license=licence, name=None, link=None)
    return replace(decision, license=licence, name=name, link=link or LICENCE_FILE)


def _terms(licence: _Declared) -> LicenceTerms:
    title = licence.title or ("not known" if licence.unseen else "none declared")
    return LicenceTerms(title=title, link=licence.link, models=licence.models)
