"""The licence that follows from a whole ancestry: what a fine-tune declares does not undo what its ancestors did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hubmerge.card.facts import LicenceDecision, ParentLicence
from hubmerge.card.licence import join_licences
from hubmerge.card.licence_notices import abridged
from hubmerge.lineage.graph import Lineage, Node, State

_UNSEEN = {
    State.MISSING: "deleted or private",
    State.LOCAL: "a folder of another machine",
    State.UNREACHABLE: "the Hub did not answer",
    State.UNREAD: "not read, because the ancestry is too large or the time was up",
}


def lineage_licence(
    lineage: Lineage, *, parents: Sequence[ParentLicence] = (), repo_id: str | None = None
) -> LicenceDecision:
    """Returns the licence of a model that has these ancestors; what is not known of them is named.

    Args:
        lineage: The ancestry, at the commits that were read.
        parents: What the root's own parents declare, where that is known from elsewhere than the crawl.
        repo_id: The id of the root, if its name is to be checked.
    """
    direct = {edge.parent for edge in lineage.parents(lineage.root)} if parents else set()
    behind = [_declaration(node) for node in lineage.ancestors if node.id not in direct]
    lost = [_lost(node) for node in lineage.ancestors if node.id in direct and _is_unread(node)]
    declared = [*parents, *behind, *lost] or [lineage.nodes[lineage.root].licence]
    decision = join_licences(declared, repo_id=repo_id)
    return replace(decision, reasons=(*decision.reasons, *_remarks(lineage)))


def _declaration(node: Node) -> ParentLicence:
    is_known = node.state in (State.READ, State.GATED) or node.licence.license is not None
    return node.licence if is_known else replace(node.licence, unseen=_UNSEEN[node.state])


def _is_unread(node: Node) -> bool:
    return node.state in (State.UNREACHABLE, State.UNREAD)


def _lost(node: Node) -> ParentLicence:
    """Returns the place of what lies behind a parent that the merge could read and the crawl could not."""
    return ParentLicence(label=f"the ancestors of {node.title}", license=None, unseen=_UNSEEN[node.state])


def _remarks(lineage: Lineage) -> Iterator[str]:
    gated = [node.title for node in lineage.ancestors if node.state is State.GATED]
    if gated:
        verb = "is" if len(gated) == 1 else "are"
        yield f"{abridged(gated)} {verb} gated: the licence is known, but not all that lies behind."
