"""The ancestry of a merge, read before a weight moves: the licence of the merge depends on all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hubmerge.card.facts import AncestryFacts, LicenceDecision, ParentLicence
from hubmerge.lineage.audit import Severity, audit
from hubmerge.lineage.declared import ADAPTER_FILE, Parent, RepoTexts, card_texts, declared
from hubmerge.lineage.draw import summary
from hubmerge.lineage.graph import Evidence, Lineage
from hubmerge.lineage.mermaid import lineage_chart
from hubmerge.lineage.names import NamedModel
from hubmerge.lineage.progress import Progress, silent
from hubmerge.lineage.published import CONFIG_FILE
from hubmerge.merge.describe import is_base_model
from hubmerge.merge.plan import Plan
from hubmerge.weights.checkpoint import CARD_FILE, CARD_LIMIT_BYTES, Checkpoint
from hubmerge.weights.files import Files, read_small


@dataclass(frozen=True)
class Ancestry:
    """What lies behind the parents of a merge.

    Attributes:
        lineage: None where nobody asked for it, where there is nothing to ask, or where it cannot be read.
        problem: Why it cannot be read, as a phrase.
        is_wanted: Whether somebody asked for it.
    """

    lineage: Lineage | None = None
    problem: str | None = None
    is_wanted: bool = True


def read_ancestry(
    plan: Plan,
    checkpoints: Sequence[Checkpoint],
    *,
    title: str,
    token: str | bool | None,
    is_wanted: bool = True,
    progress: Progress = silent,
) -> Ancestry:
    """Returns the ancestry of a planned merge; `checkpoints` are those of `plan.parents`, the rest is as below."""
    return ancestry_of(
        title,
        _parents(plan),
        method=plan.recipe.method,
        folders={each.ref.path: folder_texts(each.ref.path, each.files) for each in checkpoints if each.ref.is_local},
        token=token,
        is_wanted=is_wanted,
        progress=progress,
    )


def ancestry_of(
    title: str,
    parents: Sequence[Parent],
    *,
    method: str,
    folders: Mapping[str, RepoTexts],
    token: str | bool | None,
    is_wanted: bool = True,
    progress: Progress = silent,
) -> Ancestry:
    """Returns the ancestry of a merge as far as the Hub tells it within some seconds; never raises.

    Args:
        title: What the merge is called.
        parents: What it is made from.
        method: The merge method.
        folders: What stands in those parents that are folders of this machine, by their names.
        token: For reading the parents.
        is_wanted: Otherwise nothing is asked.
        progress: Told of every model that was looked at.
    """
    if not is_wanted:
        return Ancestry(is_wanted=False)
    if not any(parent.model.repo_id for parent in parents) and not any(declared(t).parents for t in folders.values()):
        return Ancestry()
    from hubmerge.lineage.crawl import crawl_parents

    try:
        lineage = crawl_parents(title, parents, method=method, folders=folders, token=token, progress=progress)
    except Exception as error:  # cards are written by anybody; none of them may be what a merge fails for
        return Ancestry(problem=str(error))
    return Ancestry(lineage)


def with_licence(lineage: Lineage, decision: LicenceDecision) -> Lineage:
    """Returns the ancestry of a merge that is published under this licence."""
    root = lineage.nodes[lineage.root]
    licence = ParentLicence(label=root.title, license=decision.license, name=decision.name)
    known = replace(root, licence=licence if decision.is_settled else replace(licence, license=None, name=None))
    return replace(lineage, nodes={**lineage.nodes, root.id: known})


def ancestry_facts(lineage: Lineage) -> AncestryFacts | None:
    """Returns what a card says of an ancestry; None if it ends with parents of which the card tells everything."""
    findings = audit(lineage).findings
    if max(lineage.forward.generations.values()) < 2:
        findings = tuple(finding for finding in findings if finding.severity is Severity.WARNING)
        if not findings:
            return None
    warnings = tuple(finding.sentence for finding in findings)
    return AncestryFacts(chart=lineage_chart(lineage), summary=summary(lineage), warnings=warnings)


def _parents(plan: Plan) -> Sequence[Parent]:
    found: dict[NamedModel, Parent] = {}
    for parent in plan.parents:
        ref = parent.ref
        model = NamedModel(ref.path, None if ref.is_local else ref.path, parent.sha)
        found.setdefault(model, Parent(model, is_base_model(plan, parent), (Evidence.PLAN,)))
    return tuple(found.values())


def folder_texts(path: str, files: Files) -> RepoTexts:
    """Returns what a folder of this machine says of its own descent."""
    found = {
        name: read_small(files, name, limit_bytes=CARD_LIMIT_BYTES)
        for name in (CARD_FILE, CONFIG_FILE, ADAPTER_FILE)
        if name in files.entries()
    }
    card = card_texts(path, None, found.get(CARD_FILE))
    recipe, adapter = found.get(CONFIG_FILE), found.get(ADAPTER_FILE)
    return replace(
        card,
        recipe=None if recipe is None else recipe.decode(errors="replace"),
        adapter=None if adapter is None else adapter.decode(errors="replace"),
    )
