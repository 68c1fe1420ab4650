"""An ancestry made smaller for a drawing: models that differ in nothing but their names become one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hubmerge.lineage.appearance import Kind, kind_of, licence_title
from hubmerge.lineage.graph import Lineage, Node

FEWEST_FOLDED = 4


def folded(lineage: Lineage) -> tuple[Lineage, Mapping[str, int]]:
    """Returns the ancestry with parents that are alike in one box, and how many models each such box stands for.

    Alike are models without known parents, read, under the same licence, from which only one and the same model was
    made. The first of them stands for all.
    """
    groups: dict[tuple[str, str, bool], list[Node]] = {}
    for node in lineage.ancestors:
        if key := _likeness(lineage, node):
            groups.setdefault(key, []).append(node)
    large = [nodes for nodes in groups.values() if len(nodes) >= FEWEST_FOLDED]
    sizes = {nodes[0].id: len(nodes) for nodes in large}
    gone = {node.id for nodes in large for node in nodes[1:]}
    kept = {node.id: _titled(node, sizes) for node in lineage.nodes.values() if node.id not in gone}
    edges = tuple(edge for edge in lineage.edges if edge.parent not in gone)
    return Lineage(lineage.root, kept, edges), sizes


def _likeness(lineage: Lineage, node: Node) -> tuple[str, str, bool] | None:
    """Returns what the models of one box share; None for a model that is drawn by itself."""
    children = lineage.children(node.id)
    is_plain = kind_of(node) is Kind.ORIGINAL and not node.contamination and not lineage.parents(node.id)
    if not is_plain or len(children) != 1:
        return None
    return children[0].child, licence_title(node), children[0].is_base


def _titled(node: Node, sizes: Mapping[str, int]) -> Node:
    return replace(node, title=f"{node.title} and {sizes[node.id] - 1} more") if node.id in sizes else node
