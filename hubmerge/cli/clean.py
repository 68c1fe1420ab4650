"""The command `hubmerge clean`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from hubmerge.cli.options import target_token_option

if TYPE_CHECKING:
    from hubmerge.publish.abandoned import Staging


@click.command()
@click.argument("place", metavar="REPO|DIR")
@click.option("--yes", "-y", is_flag=True, help="Remove them without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON; removes them only with --yes.")
@target_token_option("For writing to REPO")
def clean(place: str, yes: bool, as_json: bool, target_token: str | None) -> None:
    """List the unfinished merges in a Hub repo or a folder, and remove them.

    Those are staging branches, drafts and hidden folders, with their age, their size and what they are for. A merge
    that is running on another machine is among those of a repo: look at the age.

    \b
    Example:
      hubmerge clean me/merged-7b
    """
    from hubmerge.publish.clean import Place

    found = Place(place, token=target_token)
    stagings = found.abandoned()
    if as_json:
        click.echo(json.dumps([_summary(staging) for staging in stagings], indent=2))
    else:
        _show(stagings, place)
    if stagings and (yes or (not as_json and _is_wanted(len(stagings)))):
        for staging in stagings:
            found.remove(staging)
            click.echo(f"removed {staging.name}", err=True)


def _is_wanted(count: int) -> bool:
    try:
        return click.confirm(f"Remove {'it' if count == 1 else f'all {count}'}?", err=True)
    except click.Abort:
        click.echo("Nothing was removed.", err=True)
        return False


def _show(stagings: Sequence[Staging], place: str) -> None:
    from hubmerge.cli.errors import harmless

    for staging in stagings:
        models = "" if staging.note is None else f", {staging.note.models}"
        size = f"{staging.size_bytes / 1e9:.1f} GB"
        click.echo(harmless(f"{staging.name}: {_age(staging)} old, {staging.shards} shards ({size}){models}"))
    if not stagings:
        click.echo(harmless(f"{place} holds no unfinished merges."), err=True)


def _age(staging: Staging) -> str:
    age = max(timedelta(), datetime.now(UTC) - staging.changed)
    if age >= timedelta(days=2):
        return f"{age.days} days"
    hours, minutes = divmod(int(age.total_seconds()) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _summary(staging: Staging) -> dict[str, Any]:
    return {
        "name": staging.name,
        "changed": staging.changed.isoformat(),
        "shards": staging.shards,
        "size_bytes": staging.size_bytes,
        "plan": None if staging.note is None else staging.note.content,
    }
