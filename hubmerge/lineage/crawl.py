"""From a name to its whole ancestry: breadth first, each repo asked once, a few questions at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from hubmerge.card.facts import ParentLicence
from hubmerge.card.front_matter import texts
from hubmerge.card.parents import parent_facts, parent_licence
from hubmerge.errors import SourceError, TransferError
from hubmerge.lineage.declared import Declared, Parent, RepoTexts, declared
from hubmerge.lineage.fetch import Found, HubReader
from hubmerge.lineage.graph import Edge, Lineage, Node, Relation, State
from hubmerge.lineage.names import NamedModel, named_models
from hubmerge.lineage.progress import Progress, silent
from hubmerge.weights.hub_client import HASTY, RetryPolicy

QUESTIONS_AT_A_TIME = 4
"""Enough to hide the latency, few enough to leave the Hub to others."""

BUDGET_SECONDS = 30.0
"""For the ancestry of a merge that somebody waits for; what was read by then is kept for the next run."""


@dataclass(frozen=True)
class CrawlLimits:
    """Where a crawl ends; what lies behind is in the graph as unread.

    Attributes:
        depth: Generations above the first model.
        models: Repos that are asked.
    """

    depth: int = 30
    models: int = 500


DEFAULT_LIMITS = CrawlLimits()


def crawl(
    name: str,
    *,
    limits: CrawlLimits = DEFAULT_LIMITS,
    token: str | bool | None = None,
    retry: RetryPolicy = HASTY,
    progress: Progress = silent,
) -> Lineage:
    """Returns the ancestry of a repo, as far as public pages tell.

    Args:
        name: `org/name` or `org/name@revision`.
        limits: Where to end.
        token: As huggingface_hub takes it: None is the stored token if there is one, False is none.
        retry: How patient each question is.
        progress: Told of every model that was looked at.

    Raises:
        SourceError: The repo cannot be read, or the token is not accepted.
        TransferError: The Hub does not answer.
    """
    models = named_models(name)
    if len(models) != 1 or models[0].repo_id is None:
        raise SourceError(f"`{name}` is not the name of a repo", hint="Name it as the Hub does: org/name.")
    stopped = threading.Event()
    reader = HubReader(token=token, retry=retry, sleep=lambda seconds: _wait(seconds, stopped))
    found = reader.find(models[0])
    if found.state is State.UNREACHABLE:
        raise TransferError(found.reason or f"{name} cannot be read", hint="Run the command again later.")
    if found.texts is None:
        raise SourceError(found.reason or f"{name} cannot be read")
    with _Crawl(reader, limits, progress, stopped) as running:
        root = running.add(models[0], found)
        return running.follow(root)


def crawl_parents(
    title: str,
    parents: Sequence[Parent],
    *,
    method: str,
    folders: Mapping[str, RepoTexts] | None = None,
    token: str | bool | None = None,
    progress: Progress = silent,
) -> Lineage:
    """Returns the ancestry of a merge that is not published yet, and whose licence is not decided.

    What has not been read after BUDGET_SECONDS is in the graph as unread.

    Args:
        title: What it will be called.
        parents: What it is made from.
        method: The merge method.
        folders: What stands in those parents that are folders of this machine, by their paths.
        token: For reading the parents.
        progress: Told of every model that was looked at.
    """
    node = Node(
        id=title,
        title=title,
        state=State.READ,
        relation=Relation.MERGE,
        method=method,
        licence=ParentLicence(label=title, license=None),
    )
    with _time_limit(BUDGET_SECONDS) as time_is_up:
        reader = HubReader(token=token, sleep=lambda seconds: _wait(seconds, time_is_up))
        with _Crawl(reader, DEFAULT_LIMITS, progress, time_is_up, folders) as running:
            running.nodes[node.id] = node
            running.waiting = [(node.id, parent) for parent in parents]
            return running.follow(node.id)


class _TimeIsUp(Exception):
    """A question is not asked again because the crawl has to end."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[threading.Event]:
    time_is_up = threading.Event()
    timer = threading.Timer(seconds, time_is_up.set)
    timer.daemon = True
    timer.start()
    try:
        yield time_is_up
    finally:
        timer.cancel()


def _wait(seconds: float, time_is_up: threading.Event) -> None:
    if time_is_up.wait(seconds):
        raise _TimeIsUp


class _Crawl:
    """A crawl under way."""

    def __init__(
        self,
        reader: HubReader,
        limits: CrawlLimits,
        progress: Progress,
        stopped: threading.Event,
        folders: Mapping[str, RepoTexts] | None = None,
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self.waiting: list[tuple[str, Parent]] = []
        self._edges: list[Edge] = []
        self._ids: dict[tuple[str | None, str | None], str] = {}
        self._reader = reader
        self._limits = limits
        self._progress = progress
        self._stopped = stopped
        self._folders = folders or {}
        self._asked = 1
        self._root: str | None = None
        self._pool = ThreadPoolExecutor(QUESTIONS_AT_A_TIME, "hubmerge-lineage")

    def __enter__(self) -> _Crawl:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=error is None, cancel_futures=True)  # Ctrl-C waits for no answer

    def follow(self, root: str) -> Lineage:
        """Looks at everything that waits, one generation at a time."""
        self._root = root
        generation = 0
        while self.waiting:
            generation += 1
            edges, self.waiting = self.waiting, []
            self._look_at(_unknown(edges, self._ids), is_beyond=generation > self._limits.depth)
            for child, parent in edges:
                self._join(child, parent)
        return Lineage(root, dict(self.nodes), tuple(self._edges))

    def _look_at(self, models: Sequence[NamedModel], *, is_beyond: bool) -> None:
        """Adds models, in the order in which they are named."""
        left = 0 if is_beyond else max(0, self._limits.models - self._asked)
        asked, unread = models[:left], models[left:]
        self._asked += len(asked)
        for model, found in zip(asked, self._pool.map(self._find, asked), strict=True):
            self.add(model, found)
            self._progress(len(self.nodes), len(self.nodes) + len(self.waiting), model.title)
        for model in unread:
            self.add(model, Found(State.UNREAD))

    def _find(self, model: NamedModel) -> Found:
        try:
            return Found(State.UNREAD) if self._stopped.is_set() else self._reader.find(model)
        except _TimeIsUp:
            return Found(State.UNREAD)

    def add(self, model: NamedModel, found: Found) -> str:
        """Adds what was found under a name, unless it is there under another, and returns its id."""
        repo_id = found.texts.repo_id if found.texts and model.repo_id else model.repo_id
        sha = found.texts.sha if found.texts else None
        node_id = self._known(repo_id, sha) or self._new_id(repo_id, sha, model)
        self._ids[_key(model)] = node_id
        if node_id not in self.nodes:
            said = declared(found.texts) if found.texts else Declared(parents=(), relation=None)
            self.nodes[node_id] = _node(node_id, model, found, said)
            self.waiting += [(node_id, parent) for parent in said.parents]
        return node_id

    def _add_folder(self, child: str, model: NamedModel) -> str:
        """Adds a folder: one of this machine that was read, or, as another repo names it, of a machine not at hand."""
        is_at_hand = child == self._root
        return self.add(model, Found(State.LOCAL, self._folders.get(model.text) if is_at_hand else None))

    def _known(self, repo_id: str | None, sha: str | None) -> str | None:
        same = (node.id for node in self.nodes.values() if node.repo_id == repo_id and node.sha == sha)
        return next(same, None) if repo_id is not None and sha is not None else None

    def _new_id(self, repo_id: str | None, sha: str | None, model: NamedModel) -> str:
        if repo_id is not None and repo_id not in self.nodes:
            return repo_id
        revision = sha[:7] if sha else model.revision
        name = f"{repo_id}@{revision}" if repo_id and revision else repo_id or model.title
        return name if name not in self.nodes else f"{name} ({len(self.nodes)})"

    def _join(self, child: str, parent: Parent) -> None:
        model = parent.model
        # The same path is another model on another machine, so that one is added for every child.
        node_id = self._ids[_key(model)] if model.repo_id else self._add_folder(child, model)
        self._edges.append(
            Edge(child=child, parent=node_id, name=model.text, is_base=parent.is_base, evidence=parent.evidence)
        )


def _unknown(edges: Iterable[tuple[str, Parent]], known: dict[tuple[str | None, str | None], str]) -> list[NamedModel]:
    """Returns the repos to ask, each once."""
    named = {_key(parent.model): parent.model for _, parent in edges if parent.model.repo_id is not None}
    return [model for key, model in named.items() if key not in known]


def _key(model: NamedModel) -> tuple[str | None, str | None]:
    return model.repo_id, model.revision


def _node(node_id: str, model: NamedModel, found: Found, said: Declared) -> Node:
    read = found.texts or RepoTexts(repo_id=model.title, sha=None)
    repo_id = read.repo_id if model.repo_id is not None else None
    facts = parent_facts(read.metadata, label=model.title, role="", repo_id=repo_id, sha=read.sha)
    return Node(
        id=node_id,
        title=repo_id or model.title,
        state=found.state,
        repo_id=repo_id,
        sha=read.sha,
        relation=said.relation,
        method=said.method,
        licence=parent_licence(facts),
        datasets=texts(read.metadata.get("datasets")),
        recipe=said.recipe,
        contamination=said.contamination,
        problems=(*said.problems, *((found.reason,) if found.reason and found.state is not State.READ else ())),
    )
