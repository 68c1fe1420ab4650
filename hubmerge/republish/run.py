"""A published merge made again from its own recipe, with its parents as they are now: what changes is made and sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hubmerge.card.licence import override_licence
from hubmerge.card.lock import LockFacts
from hubmerge.diagnostics.document import DIAGNOSTICS_FILE, parse_notes
from hubmerge.errors import ParentsChangedError, PublishError, SourceError
from hubmerge.existing.found import FoundMerge, open_merged
from hubmerge.merge.ancestry import with_licence
from hubmerge.merge.describe import Target
from hubmerge.merge.documents import Documents
from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.licensing import check_publishable
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import OpenMerge, merge_documents, open_merge, run_merge
from hubmerge.merge.plan_note import plan_note
from hubmerge.merge.progress import Progress, Silent
from hubmerge.merge.recipe import Recipe
from hubmerge.publish import HubPublisher, HubTarget, Published
from hubmerge.publish.tags import check_new_tag, create_tag
from hubmerge.republish.changes import Change, MergeStatus, ParentStatus, change_facts
from hubmerge.republish.status import known, status_of
from hubmerge.republish.work import Work, kept_shards, work_of
from hubmerge.weights.checkpoint import DEFAULT_BRANCH

DIAGNOSTICS_LIMIT_BYTES = 64 << 20
"""A merge of thirty parents with a thousand tensors stays below it."""

NAMED_IN_TITLE = 3
"""Parents that the title of a commit has room for."""


@dataclass(frozen=True)
class RepublishOptions:
    """How a merge is republished.

    Attributes:
        merge: Tokens, memory, threads, template and licence; what decides about the bytes is taken from the lock file
            instead, and so is whether ancestors are read.
        if_changed: Nothing is done unless another merge would differ.
        create_pr: Open a pull request instead of committing to main.
        tag: For the new commit.
        commit_message: Title of the commit or the pull request; None for one that names the parents.
        target_token: For writing; None for the token that the user logged in with.
    """

    merge: MergeOptions = field(default_factory=MergeOptions)
    if_changed: bool = False
    create_pr: bool = False
    tag: str | None = None
    commit_message: str | None = None
    target_token: str | None = None


@dataclass(frozen=True, kw_only=True)
class Republication:
    """How it ended.

    Attributes:
        work: None where nothing had to be done.
        published: None where nothing was done.
    """

    status: MergeStatus
    work: Work | None = None
    published: Published | None = None


def republish(
    repo_id: str,
    options: RepublishOptions | None = None,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Republication:
    """Merges again by the recipe in a repo of the Hub, and replaces the merge there in one commit.

    Args:
        repo_id: A repo with a merge that hubmerge published.
        options: How.
        dry_run: Stop before the first byte of weights is read; the parents' headers are.
        progress: Told where it is.

    Raises:
        ParentsChangedError: A parent is gone, gated or under another licence, and nobody said that it may be.
        TargetMovedError: Somebody else changed the repo meanwhile; their change stays.
        LicenceError: The licences behind the merge do not settle its own, and nobody chose one.
        HubmergeError: One of its other kinds; the repo then is as it was.
    """
    options = options or RepublishOptions()
    if options.create_pr and options.tag:
        raise PublishError("a pull request makes no commit that a tag could name", hint="Leave out --tag.")
    token = options.merge.source_token
    with open_merged(repo_id, token=token) as merge:
        _refuse_others(merge)
        _refuse_tuned(merge)
        status = status_of(merge, token=token)
        if options.if_changed and not status.is_stale:
            return Republication(status=status)
        check_parents(status, is_licensed=options.merge.licence is not None)
        if options.tag:
            check_new_tag(repo_id, options.tag, token=options.target_token)
        return _remade(merge, status, options, progress=None if dry_run else progress or Silent())


def check_parents(status: MergeStatus, *, is_licensed: bool) -> None:
    """Raises ParentsChangedError, with all that a person has to look at, if there is such a parent.

    Args:
        status: Of the merge.
        is_licensed: Whether a person chose the licence and said why; what is gone stays an error.
    """
    grave = [parent for parent in status.parents if parent.is_grave]
    gone = [parent for parent in grave if Change.GONE in parent.changes]
    open_points = gone if is_licensed else grave
    if open_points:
        sentences = [f"{parent.label}: {'; '.join(parent.details)}" for parent in open_points]
        lines = "\n".join(f"  - {sentence}" for sentence in sentences)
        raise ParentsChangedError(
            f"{status.name} is not republished before a person has looked at its parents:\n{lines}",
            hint=_way_out(status, gone),
        )


def _remade(
    merge: FoundMerge, status: MergeStatus, options: RepublishOptions, *, progress: Progress | None
) -> Republication:
    """Returns what came of it; without `progress` what would."""
    lock, recipe = known(merge)
    _refuse_folders(status)
    with open_merge(_as_published(recipe, merge), _merge_options(lock, options.merge)) as opened:
        _check_commits(opened, status)
        documents = _documents(opened, merge, lock, status)
        kept = kept_shards(opened.plan, lock, _notes(merge))
        work = work_of(opened.plan, kept)
        if progress is None:
            check_publishable(documents.licence)
            return Republication(status=status, work=work)
        target = HubTarget(
            merge.ref.path,
            options.commit_message or _title(status),
            create_pr=options.create_pr,
            head=merge.sha,
            kept=kept,
        )
        note = plan_note(opened.plan)
        publisher = HubPublisher(target, fingerprint=fingerprint(opened.plan), note=note, token=options.target_token)
        published = run_merge(opened, publisher, documents, progress)
    if options.tag and published.commit:
        create_tag(merge.ref.path, options.tag, commit=published.commit, token=options.target_token)
    return Republication(status=status, work=work, published=published)


def _refuse_others(merge: FoundMerge) -> None:
    if merge.ref.is_local:
        raise PublishError(
            f"{merge.ref} is a folder, not a repo", hint="Make it again with `hubmerge merge` into a new folder."
        )
    if merge.ref.revision not in (None, DEFAULT_BRANCH):
        raise PublishError(f"only the main branch is republished, not {merge.ref.revision}", hint="Leave out `@`.")


def _refuse_tuned(merge: FoundMerge) -> None:
    if merge.lock is not None and merge.lock.adapters:
        raise PublishError(
            f"{merge.ref} was tuned to preferences on its parents as they were, and a merge alone would undo that",
            hint="Tune it again on the new ones: hubmerge dpo.",
        )


def _refuse_folders(status: MergeStatus) -> None:
    folders = [parent.label for parent in status.parents if Change.FOLDER in parent.changes]
    if folders:
        raise PublishError(
            f"{status.name} was merged from a folder, {folders[0]}, which nobody else has",
            hint="Publish the folder as a model, name that in the recipe, and use `hubmerge merge-and-push`.",
        )


def _as_published(recipe: Recipe, merge: FoundMerge) -> Recipe:
    """Returns the recipe with its text as the repo has it, to the byte."""
    return replace(recipe, text=merge.recipe_text)


def _merge_options(lock: LockFacts, options: MergeOptions) -> MergeOptions:
    recorded = lock.options
    if recorded is None:
        return replace(options, seed=lock.seed, lenient=True)
    return replace(
        options,
        seed=recorded.seed,
        lenient=recorded.lenient,
        shard_bytes=recorded.shard_bytes,
        lineage=recorded.lineage,
        diagnostics=recorded.diagnostics and options.diagnostics,
        allow_nan=recorded.allow_nan or options.allow_nan,
    )


def _check_commits(opened: OpenMerge, status: MergeStatus) -> None:
    """Raises SourceError if a parent has moved on since it was compared."""
    seen = {(parent.repo_id, parent.new_sha) for parent in status.parents}
    for checkpoint in opened.checkpoints:
        if (checkpoint.ref.path, checkpoint.sha) not in seen:
            raise SourceError(f"{checkpoint.ref} got another commit just now", hint="Run the same command again.")


def _notes(merge: FoundMerge) -> dict[str, bytes]:
    """Returns what was found in the weights when they were made, by the SHA-256 of their files."""
    entry = merge.files.entries().get(DIAGNOSTICS_FILE)
    if entry is None or entry.size_bytes > DIAGNOSTICS_LIMIT_BYTES:
        return {}
    return parse_notes(merge.files.read(DIAGNOSTICS_FILE, 0, entry.size_bytes))


def _documents(opened: OpenMerge, merge: FoundMerge, lock: LockFacts, status: MergeStatus) -> Documents:
    documents = merge_documents(opened, Target(merge.ref.path, is_repo=True))
    changes = change_facts(status) if status.is_changed else lock.changes
    return _with_standing_choice(replace(documents, changes=changes), lock)


def _with_standing_choice(documents: Documents, lock: LockFacts) -> Documents:
    """Returns the documents under the licence that a person chose before, if nothing behind it is different."""
    then, now = lock.licence, documents.licence
    if then is None or then.chosen_because is None or now.override_reason or then.reasons != now.reasons:
        return documents
    licence = override_licence(now, license=then.license or "", reason=then.chosen_because, name=then.name)
    lineage = None if documents.lineage is None else with_licence(documents.lineage, licence)
    return replace(documents, licence=licence, lineage=lineage)


def _title(status: MergeStatus) -> str:
    """Returns the title of the commit: what is followed."""
    reasons = [f"{' and '.join(parent.words)} of {parent.label}" for parent in status.parents if parent.is_stale]
    if status.is_recipe_changed:
        reasons.insert(0, "the recipe")
    if not reasons:
        return "Merge again"
    rest = f" and {len(reasons) - NAMED_IN_TITLE} more" if len(reasons) > NAMED_IN_TITLE else ""
    return f"Merge again: {', '.join(reasons[:NAMED_IN_TITLE])}{rest}"


def _way_out(status: MergeStatus, gone: Sequence[ParentStatus]) -> str:
    if gone:
        return f"Name models that can be read in mergekit_config.yml of {status.name}, and run the same command again."
    return (
        "If you may publish it all the same, choose its licence and say why. Run the same command with "
        '--license ID --license-reason "..."'
    )
