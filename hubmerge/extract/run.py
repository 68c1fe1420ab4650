"""An adapter from two references to its folder: open, plan, compute, publish."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hubmerge.errors import MergeError, SourceError
from hubmerge.extract.compute import compute
from hubmerge.extract.config import kept_outcomes, tensors_of
from hubmerge.extract.documents import documents
from hubmerge.extract.memory import fitted
from hubmerge.extract.plan import ExtractOptions, ExtractPlan, plan_extraction
from hubmerge.extract.progress import Progress, Silent
from hubmerge.extract.report import Outcome, Report, report
from hubmerge.extract.spool import Spool
from hubmerge.publish import FolderPublisher
from hubmerge.weights.checkpoint import open_checkpoints
from hubmerge.weights.reference import parse_reference
from hubmerge.weights.shard_index import ADAPTER_FILE

SPOOL_FILE = "factors.part"

DEFAULT_OPTIONS = ExtractOptions()


@dataclass(frozen=True)
class Extracted:
    """An adapter that was written.

    Attributes:
        notes: What the reader should know of it, one sentence each.
    """

    folder: Path
    report: Report
    notes: tuple[str, ...]


def extract_lora(
    finetuned: str,
    base: str,
    out_dir: str | Path,
    *,
    options: ExtractOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
) -> Extracted:
    """Writes the low-rank difference of two models as an adapter that peft and recipes take.

    Args:
        finetuned: A Hub id, with `@revision` or without, or a folder.
        base: What it was fine-tuned from, likewise.
        out_dir: Made if it does not exist; must be empty.

    Raises:
        HubmergeError: One of its kinds; the folder then holds nothing that looks complete.
    """
    reporter = progress or Silent()
    with _open_plan(finetuned, base, options) as plan:
        options = fitted(plan, options)
        folder = Path(out_dir)
        publisher = FolderPublisher(folder, fingerprint=plan.fingerprint(options))
        try:
            publisher.open()
            reporter.begin(plan)
            with Spool(publisher.workspace / SPOOL_FILE) as spool:
                outcomes = compute(plan, spool, options, reporter)
                kept = _nonempty(plan, outcomes)
                finished = spool.write(publisher.workspace / ADAPTER_FILE, tensors_of(kept))
            found = report(outcomes)
            files = documents(plan, kept, found, options, title=folder.resolve().name)
            publisher.publish([publisher.stage(finished)], files)
        finally:
            publisher.close()
    return Extracted(folder, found, plan.notes)


@contextmanager
def _open_plan(finetuned: str, base: str, options: ExtractOptions) -> Iterator[ExtractPlan]:
    """Gives the plan of an adapter, its two models open for reading."""
    refs = [parse_reference(text) for text in (finetuned, base)]
    for ref in refs:
        if ref.adapter is not None:
            raise SourceError(
                f"{ref} names an adapter, and the difference is that of two models", hint="Merge it first."
            )
    checkpoints = open_checkpoints(refs, token=options.source_token)
    try:
        yield plan_extraction(checkpoints[refs[0]], checkpoints[refs[1]], options)
    finally:
        for checkpoint in checkpoints.values():
            checkpoint.files.close()


def _nonempty(plan: ExtractPlan, outcomes: list[Outcome]) -> list[Outcome]:
    """Returns what goes into the adapter.

    Raises:
        MergeError: The models agree wherever a LoRA could change something.
    """
    if any(outcome.rank for outcome in outcomes):
        return kept_outcomes(outcomes)
    models = f"{plan.finetuned.files.label} and {plan.base.files.label}"
    if any(outcome.is_changed for outcome in outcomes):
        raise MergeError(f"{models} differ in nothing that a LoRA can express")
    raise MergeError(f"{models} have the same weights; there is nothing to extract")
