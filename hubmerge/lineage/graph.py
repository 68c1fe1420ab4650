"""The ancestry of a model as a graph: models, who was made from whom, and how it is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from hubmerge.card.facts import ParentLicence


class Relation(StrEnum):
    """How a model was made from its parents, in the Hub's words."""

    MERGE = "merge"
    FINETUNE = "finetune"
    ADAPTER = "adapter"
    QUANTIZED = "quantized"


class State(StrEnum):
    """What became of a model when it was looked for."""

    READ = "read"
    GATED = "gated"
    MISSING = "missing"
    LOCAL = "local"
    UNREACHABLE = "unreachable"
    UNREAD = "unread"


class Evidence(StrEnum):
    """Where a parent is named."""

    CARD = "base_model"
    TAG = "tag"
    RECIPE = "mergekit_config.yml"
    README_RECIPE = "recipe in README.md"
    ADAPTER = "adapter_config.json"
    PROSE = "sentence in README.md"
    PLAN = "the merge itself"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A model at one commit.

    Attributes:
        id: Its name within one lineage, unique there: the repo id where possible.
        title: What readers call it; of a local path only the last part.
        repo_id: The Hub's name for it today; None for a path.
        sha: None where no commit could be read.
        relation: How it was made from its parents; None where it has none that are known.
        method: The merge method, or how it was trained: `dare_ties`, `dpo`.
        licence: What it declares.
        datasets: Its card's, unfiltered.
        recipe: The recipe that it publishes, verbatim.
        contamination: Sentences of its card that warn of benchmark data in the training data.
        problems: What could not be read, one phrase each.
    """

    id: str
    title: str
    state: State
    repo_id: str | None = None
    sha: str | None = None
    relation: Relation | None = None
    method: str | None = None
    licence: ParentLicence
    datasets: tuple[str, ...] = ()
    recipe: str | None = None
    contamination: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One model was made from another.

    Attributes:
        child: Id of the node that was made.
        parent: Id of the node that it was made from.
        name: The parent as the child names it, which may be an earlier name of it.
        is_base: Whether it is the base model of a merge.
        evidence: Where the child says so.
    """

    child: str
    parent: str
    name: str
    is_base: bool
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Lineage:
    """A model and its ancestors: a graph in which two ways may lead to the same ancestor.

    Attributes:
        root: Id of the model that was asked for.
        nodes: By id, breadth first from the root.
        edges: By child in the order of `nodes`, then in the order in which the child names its parents.
    """

    root: str
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]

    def parents(self, node_id: str) -> tuple[Edge, ...]:
        """Returns the edges to what a model was made from."""
        return self._by_child.get(node_id, ())

    def children(self, node_id: str) -> tuple[Edge, ...]:
        """Returns the edges to what was made from a model, as far as it belongs to this ancestry."""
        return self._by_parent.get(node_id, ())

    def path_to(self, node_id: str) -> tuple[str, ...]:
        """Returns the ids on a shortest way from the root to a node of this lineage, both ends included."""
        way = [node_id]
        while way[-1] != self.root:
            way.append(self._nearer[way[-1]])
        return tuple(reversed(way))

    @property
    def ancestors(self) -> tuple[Node, ...]:
        """Every node but the root."""
        return tuple(node for node in self.nodes.values() if node.id != self.root)

    @cached_property
    def diamonds(self) -> tuple[Node, ...]:
        """The ancestors from which more than one model was made."""
        return tuple(node for node in self.ancestors if len(self.children(node.id)) > 1)

    @cached_property
    def circles(self) -> tuple[Edge, ...]:
        """The edges without which no model would be its own ancestor; some card is wrong about them."""
        return tuple(_back_edges(self))

    @cached_property
    def forward(self) -> Lineage:
        """The same without the edges of `circles`, so that following parents comes to an end."""
        circles = set(self.circles)
        return Lineage(self.root, self.nodes, tuple(edge for edge in self.edges if edge not in circles))

    @cached_property
    def generations(self) -> Mapping[str, int]:
        """The longest way from the root to each node, in edges; there must be no circles."""
        depth = dict.fromkeys(self.nodes, 0)
        missing = {node: len(self.children(node)) for node in self.nodes}
        ready = [node for node, number in missing.items() if number == 0]
        while ready:
            node = ready.pop()
            for edge in self.parents(node):
                depth[edge.parent] = max(depth[edge.parent], depth[node] + 1)
                missing[edge.parent] -= 1
                if missing[edge.parent] == 0:
                    ready.append(edge.parent)
        return depth

    @cached_property
    def _nearer(self) -> Mapping[str, str]:
        """Each ancestor's child on a shortest way to the root."""
        nearer: dict[str, str] = {}
        waiting = deque([self.root])
        while waiting:
            child = waiting.popleft()
            for edge in self.parents(child):
                if edge.parent != self.root and edge.parent not in nearer:
                    nearer[edge.parent] = child
                    waiting.append(edge.parent)
        return nearer

    @cached_property
    def _by_child(self) -> Mapping[str, tuple[Edge, ...]]:
        return _grouped((edge.child, edge) for edge in self.edges)

    @cached_property
    def _by_parent(self) -> Mapping[str, tuple[Edge, ...]]:
        return _grouped((edge.parent, edge) for edge in self.edges)


def _grouped(pairs: Iterable[tuple[str, Edge]]) -> Mapping[str, tuple[Edge, ...]]:
    groups: dict[str, list[Edge]] = {}
    for node, edge in pairs:
        groups.setdefault(node, []).append(edge)
    return {node: tuple(edges) for node, edges in groups.items()}


def _back_edges(lineage: Lineage) -> Iterator[Edge]:
    """Yields the edges that lead back to a model on the way to them; the depth is not bounded by Python's stack."""
    way, done = {lineage.root}, set()
    stack = [(lineage.root, iter(lineage.parents(lineage.root)))]
    while stack:
        node, edges = stack[-1]
        edge = next(edges, None)
        if edge is None:
            stack.pop()
            way.discard(node)
            done.add(node)
        elif edge.parent in way:
            yield edge
        elif edge.parent not in done:
            way.add(edge.parent)
            stack.append((edge.parent, iter(lineage.parents(edge.parent))))
