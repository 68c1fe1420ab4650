"""The licence of a merge, derived from what its parents declare: all of them count, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from hubmerge.card.facts import LicenceDecision, Outcome, ParentLicence
from hubmerge.card.licence_ids import IDS, Family, family_of, normalise
from hubmerge.card.licence_notices import notices_for


@dataclass(frozen=True)
class _Declared:
    """One licence and the parents that declare it; `id` is None if it cannot be told which licence it is."""

    id: str | None
    name: str | None
    link: str | None
    family: Family
    text: str
    labels: tuple[str, ...]

    @property
    def title(self) -> str:
        """The licence as sentences call it."""
        return self.name or self.id or self.text

    @property
    def key(self) -> tuple[str | None, str | None, str]:
        """What two declarations of the same licence share."""
        return self.id, self.name, self.text


_EACH_DEMANDS_THE_WHOLE = "each demands that the whole work be under itself"
_NO_FURTHER_LIMITS = "the one allows no restrictions beyond its own, and the other brings some"
_NO_COMMERCIAL_BAN = "the one allows commercial use of the whole work, and the other forbids it"
_NO_COMMON_LICENCE = "both sets of terms apply together, and no one licence states them"

_P, _BY, _NC, _SA, _NC_SA, _GPL, _USE, _OWN = list(Family)[:8]
_FORBIDDEN_PAIRS = {
    _NO_COMMERCIAL_BAN: ((_NC, _SA), (_NC, _GPL)),
    _EACH_DEMANDS_THE_WHOLE: ((_SA, _NC_SA), (_SA, _GPL), (_NC_SA, _GPL)),
    _NO_FURTHER_LIMITS: ((_SA, _USE), (_SA, _OWN), (_NC_SA, _USE), (_NC_SA, _OWN), (_GPL, _USE)),
}
_CONSENT_PAIRS = (
    *((_P, _OWN), (_BY, _OWN), (_NC, _OWN), (_GPL, _OWN), (_USE, _OWN), (_OWN, _OWN)),
    *((_NC, _USE), (_USE, _USE)),
)
_CLASHES = {
    **{frozenset(pair): (Outcome.FORBIDDEN, why) for why, pairs in _FORBIDDEN_PAIRS.items() for pair in pairs},
    **{frozenset(pair): (Outcome.CONSENT, _NO_COMMON_LICENCE) for pair in _CONSENT_PAIRS},
}
"""Families of two unlike licences that no one licence covers; any other pair fits, and its higher family decides."""

_ONE_WAY = frozenset({"cc-by-sa-4.0", "gpl-3.0"})
"""Join under the GPL in spite of their families: https://creativecommons.org/compatiblelicenses/"""

_LATEST = {
    Family.ATTRIBUTION: "cc-by-4.0",
    Family.NONCOMMERCIAL: "cc-by-nc-4.0",
    Family.SHARE_ALIKE: "cc-by-sa-4.0",
    Family.NONCOMMERCIAL_SHARE_ALIKE: "cc-by-nc-sa-4.0",
}


def join_licences(parents: Sequence[ParentLicence], *, repo_id: str | None = None) -> LicenceDecision:
    """Returns the licence of a merge of all these parents, base model included.

    Args:
        parents: At least one.
        repo_id: The merge's own id, checked against the licences that want a part in the name.
    """
    assert parents
    declared = _distinct(parents)
    problems = [*_lone_problems(declared), *_clashes(declared)]
    reasons = tuple(_declaration(licence) for licence in declared)
    notices = notices_for({licence.id: licence.labels for licence in declared if licence.id}, repo_id=repo_id)
    if not problems:
        winner, why = _winner(declared)
        derived = LicenceDecision(license=winner.id, outcome=Outcome.DERIVED, reasons=(*reasons, why), notices=notices)
        return replace(derived, name=winner.name, link=winner.link) if winner.id == "other" else derived
    forbidden = any(outcome is Outcome.FORBIDDEN for outcome, _ in problems)
    reasons = (*reasons, *(sentence for _, sentence in problems))
    if forbidden:
        return LicenceDecision(license=None, outcome=Outcome.FORBIDDEN, reasons=reasons, notices=notices)
    return _undecided(declared, reasons, notices)


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
    return replace(
        decision,
        license=chosen or "other",
        name=name,
        link=link,
        outcome=Outcome.OVERRIDDEN,
        override_reason=reason.strip(),
    )


def _distinct(parents: Sequence[ParentLicence]) -> list[_Declared]:
    """Returns every licence once, in order of appearance, with the labels of all parents that declare it."""
    found: dict[tuple[str | None, str | None, str], _Declared] = {}
    for parent in parents:
        for text in (parent.license or "").split(","):
            declared = _declared(text.strip(), parent)
            known = found.get(declared.key, replace(declared, labels=()))
            labels = dict.fromkeys((*known.labels, parent.label))
            found[declared.key] = replace(known, labels=tuple(labels))
    return list(found.values())


def _declared(text: str, parent: ParentLicence) -> _Declared:
    name = (parent.name or "").strip()
    is_other = text.lower() == "other"
    licence = normalise(name if is_other else text)
    if licence is not None:
        return _Declared(licence, None, None, family_of(licence), "", (parent.label,))
    if is_other and name.lower() not in ("", "other", "unknown"):
        return _Declared("other", name, parent.link, Family.USE_RESTRICTED, "", (parent.label,))
    return _Declared(None, None, None, Family.UNKNOWN, text, (parent.label,))


def _declaration(licence: _Declared) -> str:
    verb = "declares" if len(licence.labels) == 1 else "declare"
    who = f"{_listed(licence.labels)} {verb}"
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
            sentence = f"Without a known licence of {_listed(licence.labels)} none can be derived for the merge."
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
    if first is second or frozenset({first.id, second.id}) == _ONE_WAY:
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


def _undecided(declared: Sequence[_Declared], reasons: tuple[str, ...], notices: tuple[str, ...]) -> LicenceDecision:
    """Returns a decision that waits for a person: the terms that clash under one name, or none if some are unknown."""
    consent = LicenceDecision(license=None, outcome=Outcome.CONSENT, reasons=reasons, notices=notices)
    if any(licence.family is Family.UNKNOWN for licence in declared):
        return consent
    parts = [licence.title for licence in declared if any(_clash(licence, other) for other in declared)]
    return replace(consent, license="other", name="-and-".join(parts))


def _listed(labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return labels[0]
    return f"{', '.join(labels[:-1])} and {labels[-1]}"
