"""The command `hubmerge verify`: how closely to look, and what its exit code says."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubmerge.cli.errors import harmless
from hubmerge.cli.options import json_option, memory_budget_option, quiet_option, source_token_option

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hubmerge.verify.report import Report
    from hubmerge.verify.run import VerifyOptions


@click.command()
@click.argument("model", metavar="REPO|DIR")
@click.option("--revision", metavar="REVISION", help="Branch, tag or commit of the repo [default: its main branch].")
@click.option(
    "--sample",
    "fraction",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="FRACTION",
    help="Share of the parents' bytes to compute the merge of again [default: 0.005].",
)
@click.option("--full", is_flag=True, help="Compute everything again.")
@click.option("--tensor", "tensors", metavar="NAME", multiple=True, help="Compute this tensor again; may be repeated.")
@click.option(
    "--sample-seed",
    type=click.IntRange(0, 2**32 - 1),
    metavar="NUMBER",
    help="Look at the sample of an earlier report [default: another one each time].",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    metavar="ULPS",
    default=0,
    help="Accept values that differ by so many units in the last place [default: bit for bit].",
)
@click.option(
    "--attest", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write an in-toto statement."
)
@memory_budget_option("512MB to read ahead, and what the tensors in work need")
@source_token_option("For reading the merge and its parents")
@json_option("the report")
@quiet_option()
def verify(  # one option a parameter
    model: str,
    revision: str | None,
    fraction: float | None,
    full: bool,
    tensors: tuple[str, ...],
    sample_seed: int | None,
    tolerance: float,
    attest: Path | None,
    memory_budget: int | None,
    source_token: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check that the published merge REPO or DIR is what its recipe makes of its parents.

    The plan is made again from the recipe and the lock file, the parents at their commits; files, headers, card and a
    sample of the weights, computed again, are compared. The exit code is 0 if it is proven, 3 if it differs, 1 if it
    could not be checked.

    \b
    Example:
      hubmerge verify me/merged-7b --sample 0.02
    """
    from rich.console import Console

    from hubmerge.verify.report import report_as_json, verdict_sentence

    if (fraction is not None) + full + bool(tensors) > 1:
        raise click.UsageError("--sample, --full and --tensor exclude each other")
    seed = random.SystemRandom().randrange(2**32) if sample_seed is None else sample_seed
    options = _options(fraction, seed, full=full, tensors=tensors)
    options = replace(
        options,
        tolerance_ulps=tolerance,
        source_token=source_token,
        wants_provenance=attest is not None,
        memory_bytes=memory_budget,
    )
    console = Console(stderr=True, quiet=quiet)
    report = _verified(model if revision is None else f"{model}@{revision}", options, console)
    console.print(report_view(report), soft_wrap=not console.is_terminal)
    click.echo(json.dumps(report_as_json(report), indent=2) if as_json else harmless(verdict_sentence(report)))
    if attest is not None and report.verdict.value == 0:
        _write_statement(attest, report)
    sys.exit(report.verdict.value)


def _options(fraction: float | None, seed: int, *, full: bool, tensors: tuple[str, ...]) -> VerifyOptions:
    from hubmerge.verify.run import VerifyOptions
    from hubmerge.verify.sample import Sampling

    sampling = Sampling(seed=seed, is_full=full, tensors=tensors)
    if fraction is not None:
        sampling = Sampling(fraction=fraction, seed=seed, least_bytes=0)
    return VerifyOptions(sampling=sampling)


def _verified(model: str, options: VerifyOptions, console: Console) -> Report:
    from hubmerge.cli.display import size_text
    from hubmerge.verify.run import verify_merge

    with console.status("Comparing files") as status:
        return verify_merge(
            model,
            options,
            progress=lambda done, everything: status.update(f"Read {size_text(done)} of {size_text(everything)}"),
        )


def _write_statement(path: Path, report: Report) -> None:
    from hubmerge.verify.provenance import statement

    path.write_text(json.dumps(statement(report), indent=2) + "\n")


def report_view(report: Report) -> RenderableType:
    """Returns a report for reading: a line a check, the tensors that differ, and what was looked at."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("check", "outcome", "seen"):
        table.add_column(heading, overflow="fold")
    for check in report.checks:
        table.add_row(Text(check.name), Text(check.outcome.value, _STYLES[check.outcome.value]), Text(check.detail))
    return Group(
        table, *map(Text, _sample_lines(report)), *(Text(f"! {each}", "yellow") for each in report.assumptions)
    )


_STYLES = {"agrees": "green", "differs": "bold red", "could not check": "yellow", "not needed": "dim"}


def _sample_lines(report: Report) -> list[str]:
    from hubmerge.cli.display import size_text

    lines = [
        f"differs: {d.name}, {d.elements:,} of {d.looked_at:,} elements, by {d.largest:.3g} at most ({d.ulps:.3g} ulp)"
        for d in report.differences
    ]
    sample = report.sample
    if sample is None:
        return lines
    read = f"{size_text(sample.parent_bytes)} of {size_text(sample.parent_bytes_in_all)} of the parents"
    lines.append(f"computed again: {sample.tensors} of {sample.tensors_in_all} tensors, from {read}")
    if sample.seed is not None:
        lines.append(f"sample seed: {sample.seed}")
    if sample.unreached:
        lines.append(f"no room in the sample for: {', '.join(sample.unreached)}")
    return lines
