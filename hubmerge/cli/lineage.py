"""The command `hubmerge lineage`: in which form an ancestry is given out, and what its exit code says."""

from __future__ import annotations

import sys
from typing import TextIO

import click

CONSENT_NEEDED = 3


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
@click.option("--audit", "form", flag_value="audit", help="List what is wrong; exit code 3 if a person must decide.")
@click.option("--recipe", "form", flag_value="recipe", help="Print one recipe that makes all the merges again.")
@click.option("--json", "form", flag_value="json", help="Print the graph as JSON.")
@click.option("--mermaid", "form", flag_value="mermaid", help="Print a flowchart for a Markdown page.")
@click.option("--svg", type=click.File("w", "utf-8", lazy=True), metavar="FILE", help="Draw it into FILE.")
@click.option(
    "--source-token",
    metavar="TOKEN",
    envvar="HUBMERGE_SOURCE_TOKEN",
    show_envvar=True,
    help="For reading the models, in place of the stored token.",
)
def lineage(repo: str, depth: int, form: str | None, svg: TextIO | None, source_token: str | None) -> None:
    """Show where the model REPO comes from: its parents, theirs, and so on, as their public pages tell.

    \b
    Example:
      hubmerge lineage mlabonne/AlphaMonarch-7B --audit
    """
    from rich.console import Console

    from hubmerge.cli.display import crawl_progress
    from hubmerge.lineage.crawl import CrawlLimits, crawl
    from hubmerge.lineage.forms import shown, written

    with crawl_progress(Console(stderr=True)) as progress:
        found = crawl(repo, limits=CrawlLimits(depth=depth), token=source_token, progress=progress)
    if svg is not None:
        svg.write(written(found, "svg"))
    elif form in ("json", "mermaid", "recipe"):
        click.echo(written(found, form), nl=False)
    else:
        console = Console()
        view, needs_consent = shown(found, is_audit=form == "audit")
        console.print(view, soft_wrap=not console.is_terminal)
        sys.exit(CONSENT_NEEDED if needs_consent else 0)
