"""The ancestry of a merge, read in the background while it is computed: it may never delay or fail one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from contextlib import contextmanager

from hubmerge.card.facts import AncestryFacts
from hubmerge.lineage.audit import audit
from hubmerge.lineage.crawl import crawl_parents
from hubmerge.lineage.declared import Parent
from hubmerge.lineage.draw import summary
from hubmerge.lineage.graph import Evidence, Lineage
from hubmerge.lineage.mermaid import lineage_chart
from hubmerge.lineage.names import NamedModel
from hubmerge.merge.plan import Plan
from hubmerge.merge.progress import Progress

PATIENCE_SECONDS = 20.0
"""For an ancestry that is still being read when the weights are done."""


class Ancestry:
    """What is being found out; ask for it as late as possible."""

    def __init__(self, future: Future[Lineage] | None, progress: Progress) -> None:
        self._future = future
        self._progress = progress

    def result(self) -> Lineage | None:
        """Returns the ancestry; None, and a sentence to the user, where it could not be read in time."""
        if self._future is None:
            return None
        try:
            return self._future.result(timeout=PATIENCE_SECONDS)
        except NotDone:
            self._progress.say("The ancestry takes too long to read; the model card shows the parents alone")
        except Exception as error:  # whatever it is, hours of merging do not end for it
            self._progress.say(f"The ancestry cannot be read, so the model card shows the parents alone: {error}")
        return None


@contextmanager
def ancestry_in_background(
    plan: Plan, *, title: str, licence: str | None, token: str | bool | None, progress: Progress, is_wanted: bool
) -> Iterator[Ancestry]:
    """Gives the ancestry of a merge that is about to be made; leaving the block ends the crawl.

    Args:
        plan: The merge.
        title: Its repo id.
        licence: Of the merge.
        token: For reading the parents.
        progress: Told what goes wrong.
        is_wanted: Otherwise nothing is asked, and there is no ancestry.
    """
    parents = _parents(plan)
    if not is_wanted or all(parent.model.repo_id is None for parent in parents):
        yield Ancestry(None, progress)
        return
    stopped = threading.Event()
    pool = ThreadPoolExecutor(1, "hubmerge-ancestry")
    method = plan.recipe.method
    try:
        crawling = pool.submit(
            crawl_parents, title, parents, method=method, licence=licence, token=token, stopped=stopped
        )
        yield Ancestry(crawling, progress)
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def ancestry_facts(lineage: Lineage) -> AncestryFacts | None:
    """Returns what a card says of an ancestry; None if it ends with the parents, which the card has already."""
    if max(lineage.forward.generations.values()) < 2:
        return None
    warnings = tuple(finding.sentence for finding in audit(lineage).findings)
    return AncestryFacts(chart=lineage_chart(lineage), summary=summary(lineage), warnings=warnings)


def _parents(plan: Plan) -> Sequence[Parent]:
    found = []
    for parent in plan.parents:
        for ref in (parent.ref, *([parent.ref.adapter] if parent.ref.adapter else [])):
            revision = parent.sha if ref is parent.ref else ref.revision
            model = NamedModel(ref.path, None if ref.is_local else ref.path, revision)
            found.append(Parent(model, ref == plan.recipe.base_model, (Evidence.PLAN,)))
    return found
