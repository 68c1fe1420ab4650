"""The command `hubmerge status`: what changed since a merge was made, as a table, as JSON or as an exit code alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubmerge.cli.errors import harmless
from hubmerge.cli.options import json_option, quiet_option, source_token_option

if TYPE_CHECKING:
    from rich.table import Table

    from hubmerge.republish.changes import MergeStatus
    from hubmerge.republish.status import Prospect

STALE = 10


@click.command()
@click.argument("source", metavar="REPO|RECIPE")
@click.option("--lenient", is_flag=True, help="Unknown keys of the recipe are warnings instead of errors.")
@source_token_option("For reading the models")
@json_option()
@quiet_option("Print nothing; the exit code says it.")
def status(source: str, lenient: bool, source_token: str | None, as_json: bool, quiet: bool) -> None:
    """Tell whether a merge is out of date: its parents now, and as they were merged.

    Weights, tokenizer, config and card of each parent are compared with the merge's lock file by their hashes; no
    weights are read. A recipe without a lock file beside it gets the commits that it would be merged from. Exit code 0:
    up to date, though documentation may differ; 10: another merge would differ, or a person has to look at a parent.

    \b
    Example:
      hubmerge status me/merged-7b
    """
    from hubmerge.republish.status import Prospect, merge_status, recipe_status

    is_recipe = Path(source).is_file() or source.endswith((".yml", ".yaml"))
    if is_recipe:
        found = recipe_status(Path(source), token=source_token, lenient=lenient)
    else:
        found = merge_status(source, token=source_token)
    if not quiet:
        _print(source, found, as_json=as_json)
    sys.exit(STALE if not isinstance(found, Prospect) and found.is_stale else 0)


def status_sentence(found: MergeStatus) -> str:
    """Returns in a sentence whether a merge is up to date, and what differs all the same."""
    if found.is_stale:
        return f"{found.name} is out of date"
    harmless_changes = [f"{', '.join(each.words)} of {each.label}" for each in found.parents if each.changes]
    rest = f"; different all the same: {' and '.join(harmless_changes)}" if harmless_changes else ""
    return f"{found.name} is up to date{rest}"


def _print(source: str, found: MergeStatus | Prospect, *, as_json: bool) -> None:
    from hubmerge.republish.status import Prospect
    from hubmerge.republish.summary import prospect_summary, status_summary

    if as_json:
        summary = prospect_summary(source, found) if isinstance(found, Prospect) else status_summary(found)
        click.echo(json.dumps(summary, ensure_ascii=False))
        return
    if isinstance(found, Prospect):
        _show(_prospect_table(found))
        click.echo("Nothing is recorded of a merge by this recipe; it would be made from these commits")
        return
    _show(status_table(found))
    for parent in found.parents:
        for detail in parent.details:
            click.echo(f"! {harmless(detail)}")
    if found.is_recipe_changed:
        click.echo("! the recipe was edited since it was merged")
    click.echo(harmless(status_sentence(found)))


def status_table(found: MergeStatus) -> Table:
    """Returns the parents of a merge with their commits then and now, and what is different."""
    from rich.markup import escape

    from hubmerge.cli.display import plain_table

    table = plain_table("parent", "merged", "now", "different")
    for parent in found.parents:
        words = ", ".join(parent.words) or "unchanged"
        table.add_row(escape(harmless(parent.label)), _short(parent.old_sha), _short(parent.new_sha), words)
    return table


def _prospect_table(found: Prospect) -> Table:
    from rich.markup import escape

    from hubmerge.cli.display import plain_table

    table = plain_table("parent", "commit")
    for parent in found.parents:
        commit = parent.sha or parent.problem or "a folder"
        table.add_row(escape(harmless(str(parent.ref))), escape(harmless(commit)))
    return table


def _show(table: Table) -> None:
    from rich.console import Console

    console = Console()
    console.print(table, soft_wrap=not console.is_terminal)


def _short(sha: str | None) -> str:
    return sha[:12] if sha else "-"
