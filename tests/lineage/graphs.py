"""Ancestries written down in a line each, for tests that need no Hub."""

from __future__ import annotations

from dataclasses import replace

from hubmerge.card.facts import ParentLicence
from hubmerge.lineage.graph import Edge, Evidence, Lineage, Node, Relation, State


def node(node_id: str, licence: str | None = "apache-2.0", state: State = State.READ, **details: object) -> Node:
    declared = ParentLicence(label=node_id, license=licence)
    repo_id = None if state is State.LOCAL else node_id
    return Node(id=node_id, title=node_id, state=state, repo_id=repo_id, licence=declared, **details)


def edge(child: str, parent: str, *, name: str | None = None, is_base: bool = False, by: str = "card") -> Edge:
    evidence = (Evidence.CARD if by == "card" else Evidence.README_RECIPE,)
    return Edge(child=child, parent=parent, name=name or parent, is_base=is_base, evidence=evidence)


def graph(text: str, *nodes: Node) -> Lineage:
    """Returns the ancestry that `child < parent parent` lines tell; the first child is the root.

    Models with more than one parent are merges, those with one are fine-tunes; `nodes` take the place of plain ones.
    """
    pairs = [(child.strip(), parents.split()) for child, parents in (line.split("<") for line in text.split(";"))]
    given = {each.id: each for each in nodes}
    names = dict.fromkeys(name for child, parents in pairs for name in (child, *parents))
    made = {name: given.get(name, node(name)) for name in names}
    for child, parents in pairs:
        relation = Relation.MERGE if len(parents) > 1 else Relation.FINETUNE
        made[child] = replace(made[child], relation=made[child].relation or relation)
    edges = tuple(edge(child, parent) for child, parents in pairs for parent in parents)
    return Lineage(pairs[0][0], made, edges)
