"""A verification from the name of a published merge to its report, the cheap checks first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hubmerge.errors import HeaderError, HubmergeError
from hubmerge.merge.devices import HOST
from hubmerge.merge.memory import fitted
from hubmerge.merge.plan import Plan
from hubmerge.merge.stream import StreamOptions
from hubmerge.verify.cards import card_rounding
from hubmerge.verify.claims import check_claims
from hubmerge.verify.compare import Differences
from hubmerge.verify.foreign import Rounding, rounding_of
from hubmerge.verify.history import strange_commits
from hubmerge.verify.layout import check_layout
from hubmerge.verify.provenance import provenance
from hubmerge.verify.published import Published, open_published, read_headers, tensors_of
from hubmerge.verify.rebuild import Rebuilt, rebuild
from hubmerge.verify.recompute import Recomputation
from hubmerge.verify.report import Check, Outcome, Report, SampleFacts, TensorDifference
from hubmerge.verify.sample import Piece, Sample, Sampling, choose
from hubmerge.weights.checkpoint import SourceTensor
from hubmerge.weights.header import Header
from hubmerge.weights.reference import ModelRef, parse_reference

Progress = Callable[[int, int], object]
"""Told the bytes of weights that were read, and how many there are to read; may be called from any thread."""


@dataclass(frozen=True)
class VerifyOptions:
    """How closely a merge is looked at.

    Attributes:
        tolerance_ulps: Most that values may differ by; 0 compares bits.
        source_token: For reading the merge and its parents; None for the token that the user logged in with.
        wants_provenance: Whether the report has what a statement is made of, for which small files are read again.
        stream: Threads, read-ahead and connections at most.
        memory_bytes: Most memory that it may take, as if everything were looked at; None for what `stream` asks for.
    """

    sampling: Sampling = field(default_factory=Sampling)
    tolerance_ulps: float = 0
    source_token: str | bool | None = None
    wants_provenance: bool = False
    stream: StreamOptions = field(default_factory=StreamOptions)
    memory_bytes: int | None = None


def silent(_done_bytes: int, _all_bytes: int) -> None:
    """Shows nothing."""


def verify_merge(merge: str | ModelRef, options: VerifyOptions | None = None, *, progress: Progress = silent) -> Report:
    """Returns whether a published merge is what its recipe makes of its parents.

    Args:
        merge: A Hub id or a folder, with `@revision` where it is not the default branch.
        options: How closely to look.
        progress: Told how far it is.

    Raises:
        SourceError: There is no such model, or nothing says how it was made.
        RecipeError: Its recipe cannot be read.
        CardError: Its lock file cannot be read.
        TransferError: The Hub does not answer.
    """
    options = options or VerifyOptions()
    ref = parse_reference(merge) if isinstance(merge, str) else merge
    with open_published(ref, token=options.source_token) as published:
        claims = Report(
            label=published.files.label,
            commit=published.sha,
            made_by=published.made_by,
            checks=tuple(check_claims(published)),
        )
        try:
            headers = read_headers(published)
        except HeaderError as error:
            return _with(claims, Check("headers", Outcome.DIFFERS, str(error)))
        return _compared_with_parents(claims, published, headers, options, progress)


def _compared_with_parents(
    claims: Report, published: Published, headers: Mapping[str, Header], options: VerifyOptions, progress: Progress
) -> Report:
    report = claims
    try:
        with rebuild(published, headers, token=options.source_token) as rebuilt:
            strange = strange_commits(rebuilt.plan.parents, token=options.source_token) if published.lock else ()
            report = replace(report, assumptions=(*rebuilt.assumptions, *strange))
            report = _with(report, *check_layout(published, headers, rebuilt))
            report = _with_weights(report, published, tensors_of(headers), rebuilt, options, progress)
            facts = provenance(published, rebuilt) if options.wants_provenance else None
            return replace(report, provenance=facts)
    except HubmergeError as error:
        return _with(report, Check("weights", Outcome.UNCHECKED, _sentence(error)))


def _with_weights(
    report: Report,
    published: Published,
    stored: Mapping[str, SourceTensor],
    rebuilt: Rebuilt,
    options: VerifyOptions,
    progress: Progress,
) -> Report:
    rounding = _accepted(published, rebuilt.plan, options.tolerance_ulps)
    if isinstance(rounding, str):
        return _with(report, Check("weights", Outcome.UNCHECKED, rounding))
    sample = choose(rebuilt.plan, options.sampling)
    pieces = [piece for piece in sample.pieces if _fits(piece, stored)]
    compared = Recomputation(
        rebuilt,
        published.files,
        stored,
        tolerance_ulps=rounding.ulps,
        options=_fitted(rebuilt, options),
        on_read=_counted(pieces, progress),
    ).run(pieces)
    differences = tuple(_difference(name, each) for name, each in compared.items() if not rounding.explains(each))
    facts = _facts(rebuilt.plan, sample, pieces, options.sampling)
    report = replace(
        report,
        differences=differences,
        tolerance_ulps=rounding.ulps,
        sample=facts,
        assumptions=(*report.assumptions, *_near_ties(compared, rounding)),
    )
    return _with(report, _weights_check(compared, differences, facts))


def _fitted(rebuilt: Rebuilt, options: VerifyOptions) -> StreamOptions:
    if options.memory_bytes is None:
        return options.stream
    return fitted(rebuilt.plan, rebuilt.checkpoints, options.stream, budget_bytes=options.memory_bytes)


def _near_ties(compared: Mapping[str, Differences], rounding: Rounding) -> Iterator[str]:
    """Yields a sentence about elements that are passed over although they differ by more than rounding."""
    far = sum(each.beyond for each in compared.values() if rounding.explains(each))
    if far:
        everything = sum(each.looked_at for each in compared.values())
        yield (
            f"{far:,} of {everything:,} elements are further off than {rounding.ulps:g} ulp because near ties fell to "
            "the other side."
        )


def _accepted(published: Published, plan: Plan, tolerance_ulps: float) -> Rounding | str:
    """Returns how far values may be from the computed ones, or why that cannot be said."""
    if published.lock is not None:
        found: Rounding | str = card_rounding(plan) if plan.device != HOST else Rounding()
    else:
        found = rounding_of(plan)
    return found if isinstance(found, str) else replace(found, ulps=max(found.ulps, tolerance_ulps))


def _fits(piece: Piece, stored: Mapping[str, SourceTensor]) -> bool:
    """Whether a tensor is there in the right dtype and shape; where it is not, another check says so."""
    info = piece.tensor.info
    found = stored.get(info.name)
    return found is not None and (found.info.dtype, found.info.shape) == (info.dtype, info.shape)


def _weights_check(
    compared: Mapping[str, Differences], differences: tuple[TensorDifference, ...], facts: SampleFacts
) -> Check:
    if differences:
        worst = max(differences, key=lambda each: each.elements)
        more = f"; {len(differences) - 1} more tensors differ" if len(differences) > 1 else ""
        seen = f"{worst.elements:,} of {worst.looked_at:,} elements of {worst.name} differ"
        return Check("weights", Outcome.DIFFERS, f"{seen}, by {worst.largest:.3g} at most ({worst.ulps:.3g} ulp){more}")
    if not compared:
        return Check("weights", Outcome.UNCHECKED, "no tensor could be compared")
    elements = sum(each.looked_at for each in compared.values())
    return Check(
        "weights", Outcome.AGREES, f"{elements:,} elements of {facts.tensors} of {facts.tensors_in_all} tensors"
    )


def _difference(name: str, found: Differences) -> TensorDifference:
    return TensorDifference(name, found.beyond, found.looked_at, found.largest, found.ulps)


def _facts(plan: Plan, sample: Sample, pieces: list[Piece], sampling: Sampling) -> SampleFacts:
    is_drawn = not (sampling.is_full or sampling.tensors)
    names = {piece.tensor.info.name for piece in pieces}
    everything = Sampling(is_full=True)
    return SampleFacts(
        seed=sampling.seed if is_drawn else None,
        tensors=len(names),
        tensors_in_all=sum(1 for _ in plan.tensors),
        parent_bytes=sum(piece.parent_bytes for piece in pieces),
        parent_bytes_in_all=sum(piece.parent_bytes for piece in choose(plan, everything).pieces),
        result_bytes=sum(piece.result_bytes for piece in pieces),
        unreached=sample.unreached,
    )


def _counted(pieces: list[Piece], progress: Progress) -> Callable[[int], None]:
    """Returns what adds up the bytes that were read and hands on the sum."""
    everything = sum(piece.parent_bytes + piece.result_bytes for piece in pieces)
    done, lock = 0, threading.Lock()

    def add(size_bytes: int) -> None:
        nonlocal done
        with lock:
            done += size_bytes
            progress(done, everything)

    return add


def _sentence(error: HubmergeError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _with(report: Report, *checks: Check) -> Report:
    return replace(report, checks=(*report.checks, *checks))
