"""A merge from its recipe to its target: resolve, plan, stream, publish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubmerge.card.facts import LicenceDecision
from hubmerge.diagnostics.collect import Collector
from hubmerge.diagnostics.report import report_on
from hubmerge.lineage.progress import Progress as CrawlProgress
from hubmerge.lineage.progress import silent
from hubmerge.merge.ancestry import Ancestry, read_ancestry
from hubmerge.merge.describe import Target, parents_of
from hubmerge.merge.devices import device_class, find_cards
from hubmerge.merge.documents import REPLACED_FILES, Documents, Tuned, write_documents
from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.licensing import check_publishable, decide_licence, unsettled
from hubmerge.merge.limits import SHARDS_ON_DISK, check_folder_budget, check_free_disk, explained_limits, shards_at_once
from hubmerge.merge.memory import fitted
from hubmerge.merge.moe.gates import find_gates
from hubmerge.merge.options import DEFAULT_OPTIONS, MergeOptions
from hubmerge.merge.plan import Plan, ShardPlan, build_plan, lora_refs, model_refs, plan_parents
from hubmerge.merge.plan_note import plan_note
from hubmerge.merge.progress import Progress, Silent, Stage
from hubmerge.merge.recipe import Recipe, load_recipe
from hubmerge.merge.stream import Stream, open_stream
from hubmerge.publish import FolderPublisher, Published, Publisher, StagedShard
from hubmerge.weights.checkpoint import Checkpoint, open_adapter, open_checkpoints, parent_checkpoints
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.shards import FinishedShard, ShardFile

RecipeLike = str | Path | Mapping[str, Any] | Recipe


@dataclass(frozen=True)
class OpenMerge:
    """A planned merge whose parents can be read.

    Attributes:
        checkpoints: Those of `plan.parents`, models and adapters.
        options: As they were given; `stream` is what fits into the memory.
    """

    plan: Plan
    checkpoints: tuple[Checkpoint, ...]
    options: MergeOptions


@contextmanager
def open_merge(recipe: RecipeLike, options: MergeOptions = DEFAULT_OPTIONS) -> Iterator[OpenMerge]:
    """Gives the plan of a recipe, its parents open for reading.

    Raises:
        RecipeError: The recipe is wrong.
        SourceError: A parent cannot be used.
        PlanError: The parents do not fit together.
        LimitError: It needs more memory than it may take, or a device that is not there.
    """
    cards = options.stream.cards or find_cards(options.device)
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, lenient=options.lenient)
    if options.seed is not None:
        loaded = loaded.with_seed(options.seed)
    checkpoints = open_checkpoints(model_refs(loaded), token=options.source_token)
    parents = parent_checkpoints(checkpoints.values())
    try:
        adapters = {ref: open_adapter(ref, token=options.source_token) for ref in lora_refs(loaded)}
        parents = plan_parents(checkpoints, adapters)
        planned = build_plan(loaded, checkpoints, adapters, shard_bytes=options.shard_bytes)
        plan = replace(planned, device=device_class(options.device))
        opened = tuple(parents.values())
        stream = fitted(plan, opened, replace(options.stream, cards=cards), budget_bytes=options.memory_bytes)
        yield OpenMerge(plan, opened, replace(options, stream=stream))
    finally:
        for parent in parents.values():
            parent.files.close()


def plan_recipe(recipe: RecipeLike, options: MergeOptions = DEFAULT_OPTIONS) -> Plan:
    """Returns the plan of a recipe; reads its parents' headers and configs only. Raises as `open_merge` does."""
    with open_merge(recipe, options) as merge:
        return merge.plan


def planned_licence(merge: OpenMerge, progress: CrawlProgress = silent) -> LicenceDecision:
    """Returns the licence that a merge will have; asks the Hub about its ancestors.

    Args:
        merge: The merge.
        progress: Told of every model that was looked at.
    """
    return _decided(merge, _ancestry(merge, title=merge.plan.recipe.method, progress=progress), repo_id=None)


def merge_to_folder(
    recipe: RecipeLike,
    out_dir: str | Path,
    *,
    options: MergeOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
) -> Published:
    """Merges into a folder that transformers loads.

    Args:
        recipe: A file, its text, its content, or a loaded recipe.
        out_dir: Made if it does not exist; must be empty, or hold what an interrupted run of the same merge left.

    Raises:
        HubmergeError: One of its kinds; the folder then holds nothing that looks complete.
    """
    with open_merge(recipe, options) as merge:
        check_folder_budget(merge.plan, options.disk_bytes)
        publisher = FolderPublisher(Path(out_dir), fingerprint=fingerprint(merge.plan), note=plan_note(merge.plan))
        documents = merge_documents(merge, Target(str(out_dir), is_repo=False))
        return run_merge(merge, publisher, documents, progress or Silent())


def merge_and_push(
    recipe: RecipeLike,
    repo_id: str,
    *,
    revision: str = "main",
    private: bool | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    target_token: str | None = None,
    options: MergeOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
) -> Published:
    """Merges straight from the parents' repos into a repo of the Hub, which changes in one commit at the end.

    Args:
        recipe: A file, its text, its content, or a loaded recipe.
        repo_id: Created if it does not exist.
        revision: The branch to publish to; created from main if it does not exist.
        private: Visibility of a new repo; None for the account's default.
        create_pr: Open a pull request instead.
        commit_message: Title of the commit or the pull request.
        target_token: For writing; None for the token that the user logged in with.

    Raises:
        LicenceError: The licences behind the merge do not settle its own, and nobody chose one.
        HubmergeError: One of its other kinds; the branch then is as it was.
    """
    from hubmerge.publish.hub import HubPublisher, HubTarget

    with open_merge(recipe, options) as merge:
        message = commit_message or f"Merge by {merge.plan.recipe.method} with hubmerge"
        target = HubTarget(repo_id, message, revision=revision, private=private, create_pr=create_pr)
        note = plan_note(merge.plan)
        publisher = HubPublisher(target, fingerprint=fingerprint(merge.plan), note=note, token=target_token)
        documents = merge_documents(merge, Target(repo_id, is_repo=True))
        return run_merge(merge, publisher, documents, progress or Silent())


def run_merge(merge: OpenMerge, publisher: Publisher, documents: Documents, progress: Progress) -> Published:
    """Makes a planned merge and publishes it with these documents; raises as `merge_and_push` does."""
    is_push = documents.target.is_repo
    at_once = shards_at_once(merge.plan, merge.options.disk_bytes) if is_push else None
    if is_push:
        check_publishable(documents.licence)
    try:
        staged = publisher.open()
        previous = {name: content for name in REPLACED_FILES if (content := publisher.existing(name)) is not None}
        for leftover in publisher.leftovers():
            progress.say(leftover)
        for warning in documents.check(previous):
            progress.say(f"The Hub says of the model card: {warning}")
        progress.begin(merge.plan)
        for warning in (*unsettled(documents.licence), *documents.licence.warnings):
            progress.say(f"! {warning}")
        collector = Collector(merge.plan, measures=merge.options.diagnostics, allows_nan=merge.options.allow_nan)
        collector.begin()
        with explained_limits():
            shards = _make_shards(merge, publisher, staged, progress, collector, at_once=at_once)
        notes = {shard.sha256: shard.notes for shard in shards}
        report = report_on(collector.diagnostics(), say=progress.say, notes=notes)
        return publisher.publish(shards, documents.files(shards, previous, report))
    finally:
        publisher.close()


def merge_documents(merge: OpenMerge, target: Target, tuned: Tuned | None = None) -> Documents:
    """Returns the writer of the documents; the ancestry is read and the licence decided.

    An adapter that was trained for this very merge has neither an ancestry nor a licence of its own.
    """
    others = merge if tuned is None else _without(merge, tuned.adapter)
    ancestry = _ancestry(others, title=target.repo_id or target.title)
    return write_documents(
        merge.plan,
        merge.checkpoints,
        target=target,
        licence=_decided(others, ancestry, repo_id=target.repo_id),
        ancestry=ancestry,
        template=merge.options.template,
        arguments=merge.options.arguments,
        options=merge.options.recorded,
        tuned=tuned,
    )


def _without(merge: OpenMerge, ref: ModelRef) -> OpenMerge:
    """Returns a merge as if it had no such parent, for what is asked about its parents."""
    pairs = zip(merge.plan.parents, merge.checkpoints, strict=True)
    kept = [(parent, checkpoint) for parent, checkpoint in pairs if parent.ref != ref]
    plan = replace(merge.plan, parents=tuple(parent for parent, _ in kept))
    return replace(merge, plan=plan, checkpoints=tuple(checkpoint for _, checkpoint in kept))


def _ancestry(merge: OpenMerge, *, title: str, progress: CrawlProgress = silent) -> Ancestry:
    token, is_wanted = merge.options.source_token, merge.options.lineage
    return read_ancestry(
        merge.plan, merge.checkpoints, title=title, token=token, is_wanted=is_wanted, progress=progress
    )


def _decided(merge: OpenMerge, ancestry: Ancestry, *, repo_id: str | None) -> LicenceDecision:
    parents = parents_of(merge.plan, merge.checkpoints)
    return decide_licence(parents, ancestry, choice=merge.options.licence, repo_id=repo_id)


def _make_shards(
    merge: OpenMerge,
    publisher: Publisher,
    staged: Mapping[str, StagedShard],
    progress: Progress,
    collector: Collector,
    *,
    at_once: int | None,
) -> list[StagedShard]:
    """Returns all shards, staged; those that an earlier run staged, with notes on them, are not made again."""
    shards = merge.plan.shards
    todo = [shard for shard in shards if not _has_arrived(shard, staged, collector)]
    done = [staged[shard.filename] for shard in shards if shard not in todo]
    for arrived in done:
        progress.skip(arrived.filename, arrived.size_bytes)
    check_free_disk(publisher.workspace, todo, at_once=at_once)
    files = [checkpoint.files for checkpoint in merge.checkpoints]
    options = merge.options.stream
    gates = find_gates(merge.plan, todo, merge.checkpoints, options=options, progress=progress)
    with (
        _uploading() as uploader,
        open_stream(todo, files, options=options, progress=progress, gates=gates, watcher=collector.watch) as stream,
    ):
        pending: list[Future[StagedShard]] = []
        for shard in todo:
            if len(pending) >= (at_once or SHARDS_ON_DISK):
                done.append(pending.pop(0).result())
            finished = _fill(stream, shard, publisher.workspace)
            pending.append(uploader.submit(_stage, publisher, finished, collector.notes(shard), progress))
        done += [future.result() for future in pending]
    return sorted(done, key=lambda shard: shard.filename)


@contextmanager
def _uploading() -> Iterator[ThreadPoolExecutor]:
    """Gives the thread that uploads; an error waits for what is on its way, Ctrl-C does not."""
    uploader = ThreadPoolExecutor(1, "hubmerge-upload")
    waits = True
    try:
        yield uploader
    except KeyboardInterrupt:
        waits = False
        raise
    finally:
        uploader.shutdown(wait=waits, cancel_futures=not waits)


def _has_arrived(shard: ShardPlan, staged: Mapping[str, StagedShard], collector: Collector) -> bool:
    arrived = staged.get(shard.filename)
    is_whole = arrived is not None and arrived.size_bytes == shard.size_bytes
    return arrived is not None and is_whole and collector.take_up(shard, arrived.notes)


def _fill(stream: Stream, shard: ShardPlan, workspace: Path) -> FinishedShard:
    file = ShardFile.create(workspace / shard.filename, shard.header, size_bytes=shard.size_bytes)
    try:
        stream.fill(shard, file)
        return file.finish()
    except BaseException:
        file.abort()
        raise


def _stage(publisher: Publisher, finished: FinishedShard, notes: bytes, progress: Progress) -> StagedShard:
    staged = publisher.stage(finished, notes)
    progress.advance(Stage.STAGE, staged.size_bytes)
    return staged
