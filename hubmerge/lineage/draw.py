"""An ancestry on the terminal: the model above, its parents as branches, each ancestor spelled out once."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from hubmerge.lineage.appearance import Kind, Tone, kind_of, licence_title, made_by, tone_of
from hubmerge.lineage.audit import Audit, Finding, Severity
from hubmerge.lineage.graph import Edge, Lineage, Node

GUIDE = 4
"""Columns of the lines before each generation."""

LEAST_LABEL = 24
"""Columns below which a label falls apart into syllables."""

_KIND_STYLES = {
    Kind.MERGE: "bold magenta",
    Kind.FINETUNE: "cyan",
    Kind.ADAPTER: "yellow",
    Kind.QUANTIZED: "blue",
    Kind.ORIGINAL: "",
    Kind.UNSEEN: "dim red",
}
_TONE_STYLES = {
    Tone.OPEN: "green",
    Tone.SHARED: "cyan",
    Tone.RESTRICTED: "magenta",
    Tone.NONCOMMERCIAL: "yellow",
    Tone.FORBIDDEN: "bold red",
    Tone.UNKNOWN: "red",
}


def lineage_view(lineage: Lineage) -> RenderableType:
    """Returns the tree and a line that counts it; an ancestor that comes again is named with an arrow upwards."""
    root = lineage.nodes[lineage.root]
    tree = Tree(_label(root), guide_style="dim")
    _grow(tree, lineage, lineage.root, seen={lineage.root})
    return Group(tree, Text(summary(lineage), style="dim"))


def least_width(lineage: Lineage) -> int:
    """Returns the columns that the tree needs; on narrower terminals its lines are better left to wrap as they are."""
    return GUIDE * max(lineage.forward.generations.values()) + LEAST_LABEL


def summary(lineage: Lineage) -> str:
    """Returns the size of an ancestry in a sentence."""
    shared, number = len(lineage.diamonds), len(lineage.ancestors)
    counted = f"{number} ancestor{'s' * (number != 1)}"
    return f"{counted}, {shared} of them reached more than one way" if shared else counted


def audit_view(audit: Audit) -> RenderableType:
    """Returns the findings, those that need consent marked, and the licence that follows from all ancestors."""
    lines = [_finding(finding) for finding in audit.findings]
    licence = (audit.licence.name or audit.licence.license) if audit.licence.is_settled else None
    verdict = f"Licence that follows from all ancestors: {licence or 'none; a person must decide'}."
    return Group(*(lines or [Text("Nothing is wrong that public pages could show.", style="green")]), Text(verdict))


def _grow(tree: Tree, lineage: Lineage, node_id: str, *, seen: set[str]) -> None:
    """Adds the parents of a model; every node of a lineage is spelled out once, so this ends in any circle."""
    for edge in lineage.parents(node_id):
        node = lineage.nodes[edge.parent]
        again = node.id in seen and bool(lineage.parents(node.id))
        branch = tree.add(_label(node, edge, again=again))
        if node.id not in seen:
            seen.add(node.id)
            _grow(branch, lineage, node.id, seen=seen)


def _label(node: Node, edge: Edge | None = None, *, again: bool = False) -> Text:
    kind = kind_of(node)
    text = Text()
    text.append(node.id if node.repo_id else node.title, style="dim red" if kind is Kind.UNSEEN else "bold")
    if edge is not None and edge.is_base:
        text.append(" (base)", style="dim")
    if again:
        return text.append("  ↑", style="dim")
    text.append(f"  {made_by(node)}", style=_KIND_STYLES[kind])
    if kind is not Kind.UNSEEN:
        text.append(f"  {licence_title(node)}", style=_TONE_STYLES[tone_of(node)])
    if node.contamination:
        text.append("  contaminated data", style="bold yellow")
    return text


def _finding(finding: Finding) -> Text:
    needs_consent = finding.severity is Severity.CONSENT
    return Text.assemble(("! ", "bold red") if needs_consent else ("- ", "yellow"), finding.sentence)
