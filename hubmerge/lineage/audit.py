"""What is wrong in an ancestry: licences that do not pass on, contaminated data, parents that nobody can see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from hubmerge.card.facts import LicenceDecision, Outcome
from hubmerge.card.licence import join_licences, licence_families
from hubmerge.card.licence_ids import Family, family_of
from hubmerge.card.licence_notices import abridged
from hubmerge.lineage.appearance import licence_title
from hubmerge.lineage.graph import Evidence, Lineage, Node, Relation, State
from hubmerge.lineage.licence import lineage_licence
from hubmerge.lineage.names import named_models


class Fault(StrEnum):
    """A kind of finding."""

    NO_DERIVATIVES = "no derivatives"
    MISSING = "missing"
    LOCAL = "local path"
    UNLICENSED = "no known licence"
    LAXER_LICENCE = "laxer licence"
    LICENCE_CLASH = "licence clash"
    CONTAMINATED = "contaminated"
    QUANTIZED = "quantised parent"
    BASE_LEFT_OUT = "base left out"
    PARENTS_LEFT_OUT = "parents left out"
    CIRCLE = "circle"
    RENAMED = "renamed"
    UNREAD = "unread"


class Severity(StrEnum):
    """What a finding means for somebody who wants to publish a descendant."""

    CONSENT = "consent"
    WARNING = "warning"
    NOTE = "note"


NEEDS_CONSENT = frozenset(
    {Fault.NO_DERIVATIVES, Fault.MISSING, Fault.LOCAL, Fault.UNLICENSED, Fault.LAXER_LICENCE, Fault.LICENCE_CLASH}
)
"""What leaves open under which terms a descendant may be published, so that a person has to decide."""

NOTES = frozenset({Fault.CIRCLE, Fault.RENAMED, Fault.UNREAD})
"""What changes nothing about the model."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        model: Id of the model that it concerns, in the lineage.
        sentence: What is wrong, whole.
    """

    fault: Fault
    model: str
    sentence: str

    @property
    def severity(self) -> Severity:
        """What it means for somebody who wants to publish a descendant."""
        if self.fault in NEEDS_CONSENT:
            return Severity.CONSENT
        return Severity.NOTE if self.fault in NOTES else Severity.WARNING


@dataclass(frozen=True)
class Audit:
    """The findings in an ancestry, the kinds in the order of `Fault`, and the licence that follows from all of it."""

    findings: tuple[Finding, ...]
    licence: LicenceDecision

    @property
    def needs_consent(self) -> bool:
        """Whether anything needs a person's decision: a finding, or licences that do not settle that of a merge."""
        is_found = any(finding.severity is Severity.CONSENT for finding in self.findings)
        return is_found or not self.licence.is_settled


def audit(lineage: Lineage) -> Audit:
    """Returns everything that is wrong, and the licence that all ancestors together allow."""
    found = [finding for node in lineage.nodes.values() for finding in _findings(lineage, node)]
    found += [_circle(lineage, edge.child, edge.parent) for edge in lineage.circles]
    kinds = list(Fault)
    findings = sorted(found, key=lambda finding: kinds.index(finding.fault))
    return Audit(tuple(dict.fromkeys(findings)), lineage_licence(lineage))


def _findings(lineage: Lineage, node: Node) -> Iterator[Finding]:
    yield from _of_licence(lineage, node)
    yield from _of_reading(lineage, node)
    yield from _of_parents(lineage, node)
    if node.relation is Relation.QUANTIZED and lineage.children(node.id):
        sentence = f"{node.title} is a quantised copy with rounded weights, and {_made(lineage, node)}."
        yield Finding(Fault.QUANTIZED, node.id, sentence)
    for quote in node.contamination:
        yield Finding(Fault.CONTAMINATED, node.id, f"{node.title} speaks of contaminated data: “{quote}”")


def _of_licence(lineage: Lineage, node: Node) -> Iterator[Finding]:
    families = licence_families(node.licence)
    descends = lineage.children(node.id)
    if Family.NO_DERIVATIVES in families and descends:
        terms = f"{licence_title(node)}, which allows no derivatives"
        sentence = f"{node.title} is under {terms}, and {_made(lineage, node)}."
        yield Finding(Fault.NO_DERIVATIVES, node.id, sentence)
    if node.state in (State.READ, State.GATED) and Family.UNKNOWN in families and descends:
        sentence = f"{node.title} declares {licence_title(node)}, so nobody can tell what its descendants may do."
        yield Finding(Fault.UNLICENSED, node.id, sentence)
    if Family.UNKNOWN not in families and node.state in (State.READ, State.GATED):
        yield from _against_parents(lineage, node)


def _against_parents(lineage: Lineage, node: Node) -> Iterator[Finding]:
    """Yields where a model's licence promises what that of the nearest ancestors with one does not allow."""
    for ancestor in _licensed_above(lineage.forward, node.id):
        if Family.NO_DERIVATIVES in licence_families(ancestor.licence):
            continue
        joint = join_licences([node.licence, ancestor.licence])
        pair = f"{node.title} declares {licence_title(node)}, and {ancestor.title}, from which it descends, "
        if joint.outcome is not Outcome.DERIVED:
            yield Finding(Fault.LICENCE_CLASH, node.id, f"{pair}{licence_title(ancestor)}: the two do not join.")
        elif family_of(joint.license or "") > max(licence_families(node.licence)):
            yield Finding(Fault.LAXER_LICENCE, node.id, f"{pair}{licence_title(ancestor)}, which asks for more.")


def _licensed_above(lineage: Lineage, node_id: str) -> list[Node]:
    found: dict[str, Node] = {}
    waiting, seen = [node_id], {node_id}
    while waiting:
        for edge in lineage.parents(waiting.pop(0)):
            parent = lineage.nodes[edge.parent]
            if Family.UNKNOWN not in licence_families(parent.licence):
                found[parent.id] = parent
            elif parent.id not in seen:
                seen.add(parent.id)
                waiting.append(parent.id)
    return list(found.values())


def _of_reading(lineage: Lineage, node: Node) -> Iterator[Finding]:
    match node.state:
        case State.MISSING:
            sentence = f"{node.title} has been deleted or is private, and {_made(lineage, node)}."
            yield Finding(Fault.MISSING, node.id, sentence)
        case State.LOCAL:
            sentence = f"{node.title} is a folder on somebody's machine, and {_made(lineage, node)}."
            yield Finding(Fault.LOCAL, node.id, sentence)
        case State.UNREACHABLE | State.UNREAD:
            yield Finding(Fault.UNREAD, node.id, f"{node.title} was not read, nor what it was made from.")
        case State.GATED:
            sentence = f"{node.title} is gated: its metadata was read, its card and its recipe were not."
            yield Finding(Fault.UNREAD, node.id, sentence)
    if node.state is State.READ:
        for problem in node.problems:
            yield Finding(Fault.UNREAD, node.id, f"{node.title}: {problem}.")


def _of_parents(lineage: Lineage, node: Node) -> Iterator[Finding]:
    edges = lineage.parents(node.id)
    named = [edge for edge in edges if {Evidence.CARD, Evidence.TAG, Evidence.PLAN} & set(edge.evidence)]
    if edges and not named and node.state is State.READ:
        sentence = f"{node.title} names none of its {len(edges)} parents in base_model."
        yield Finding(Fault.PARENTS_LEFT_OUT, node.id, sentence.replace("its 1 parents", "its parents"))
    for edge in edges:
        parent = lineage.nodes[edge.parent]
        if edge.is_base and named and edge not in named and node.relation is Relation.MERGE:
            sentence = f"{node.title} leaves {parent.title}, the base of the merge, out of base_model."
            yield Finding(Fault.BASE_LEFT_OUT, node.id, sentence)
        if parent.state is State.READ and not _is_called(parent, edge.name):
            sentence = f"{parent.title} is what {node.title} calls {edge.name}: it has been renamed."
            yield Finding(Fault.RENAMED, parent.id, sentence)


def _is_called(model: Node, name: str) -> bool:
    """Returns whether a name is that of a repo today, for which the Hub takes small letters and capitals alike."""
    named = [(each.repo_id or "").lower() for each in named_models(name)]
    return (model.repo_id or "").lower() in named


def _circle(lineage: Lineage, child: str, parent: str) -> Finding:
    title = lineage.nodes[child].title
    if child == parent:
        return Finding(Fault.CIRCLE, child, f"{title} names itself as its parent.")
    sentence = f"{title} names {lineage.nodes[parent].title} as its parent, of which it is an ancestor itself."
    return Finding(Fault.CIRCLE, child, sentence)


def _made(lineage: Lineage, node: Node) -> str:
    children = list(dict.fromkeys(lineage.nodes[edge.child].title for edge in lineage.children(node.id)))
    return f"{abridged(children)} {'was' if len(children) == 1 else 'were'} made from it"
