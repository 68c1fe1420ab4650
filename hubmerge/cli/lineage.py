"""The command `hubmerge lineage`: in which form an ancestry is given out, and what its exit code says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from hubmerge.cli.options import json_option, source_token_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hubmerge.lineage.graph import Lineage

CONSENT_NEEDED = 3


def _in_a_folder(_context: click.Context, _option: click.Parameter, file: TextIO | None) -> TextIO | None:
    """Refuses a file whose folder is not there before anybody waits for what goes into it."""
    if file is not None and not Path(file.name).parent.is_dir():
        raise click.BadParameter(f"there is no folder {Path(file.name).parent}")
    return file


@click.command()
@click.argument("repo")
@click.option(
    "--depth",
    type=click.IntRange(1, 100),
    metavar="NUMBER",
    default=30,
    show_default=True,
    help="Generations to go back.",
)
@click.option("--audit", "is_audit", is_flag=True, help="List what is wrong; exit code 3 if a person must decide.")
@click.option("--recipe", "form", flag_value="recipe", help="Print one recipe that makes all the merges again.")
@json_option("the graph, or what --audit finds,")
@click.option("--mermaid", "form", flag_value="mermaid", help="Print a flowchart for a Markdown page.")
@click.option(
    "--svg",
    type=click.File("w", "utf-8", lazy=True),
    metavar="FILE",
    callback=_in_a_folder,
    help="Draw it into FILE.",
)
@source_token_option("For reading the models")
def lineage(
    repo: str,
    depth: int,
    is_audit: bool,
    form: str | None,
    as_json: bool,
    svg: TextIO | None,
    source_token: str | None,
) -> None:
    """Show where the model REPO comes from: its parents, theirs, and so on, as their public pages tell.

    \b
    Example:
      hubmerge lineage mlabonne/AlphaMonarch-7B --audit
    """
    from rich.console import Console

    from hubmerge.cli.display import crawl_progress
    from hubmerge.lineage.crawl import CrawlLimits, crawl
    from hubmerge.lineage.draw import least_width, lineage_view
    from hubmerge.lineage.forms import written

    if is_audit and (svg is not None or form is not None):
        raise click.UsageError("--audit goes with --json or with nothing")
    if as_json and form is not None:
        raise click.UsageError("--json, --mermaid and --recipe exclude one another")
    with crawl_progress(Console(stderr=True)) as progress:
        found = crawl(repo, limits=CrawlLimits(depth=depth), token=source_token, progress=progress)
    if is_audit:
        sys.exit(_audit(found, as_json=as_json))
    if svg is not None:
        svg.write(written(found, "svg"))
    if as_json or form is not None:
        click.echo(written(found, form or "json"), nl=False)
    elif svg is None:
        _show(lineage_view(found), least_width=least_width(found))


def _audit(found: Lineage, *, as_json: bool) -> int:
    """Prints what is wrong and returns the exit code."""
    from hubmerge.lineage.audit import audit
    from hubmerge.lineage.draw import audit_view
    from hubmerge.lineage.record import render_audit

    audited = audit(found)
    if as_json:
        click.echo(render_audit(found, audited), nl=False)
    else:
        _show(audit_view(audited))
    return CONSENT_NEEDED if audited.needs_consent else 0


def _show(view: RenderableType, *, least_width: int = 0) -> None:
    from rich.console import Console

    console = Console()
    console.print(view, soft_wrap=not console.is_terminal or console.width < least_width)
