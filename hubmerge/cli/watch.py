"""The command `hubmerge watch`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from hubmerge.cli.errors import harmless
from hubmerge.cli.options import json_option, quiet_option, source_token_option

if TYPE_CHECKING:
    from hubmerge.automation.watch import Watch


@click.command()
@click.argument("repo_id", metavar="REPO")
@click.option("--schedule", metavar="WHEN", help="Look at set times instead: @hourly, @daily, @weekly, or cron.")
@click.option("--flavor", help="Hardware of the jobs [default: cpu-upgrade].")
@click.option("--list", "lists", is_flag=True, help="Only show what watches REPO.")
@click.option("--remove", "removes", is_flag=True, help="Stop watching REPO.")
@source_token_option("For reading the parents")
@json_option()
@quiet_option("Print only the Hub's ids.")
def watch(
    repo_id: str,
    schedule: str | None,
    flavor: str | None,
    lists: bool,
    removes: bool,
    source_token: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Have the Hub merge REPO again when one of its parents changes.

    A webhook on the parents starts a job on the Hub, which runs `hubmerge republish REPO --if-changed` with your token
    as its secret. Jobs are paid by your account.

    \b
    Example:
      hubmerge watch me/merged-7b
      hubmerge watch me/merged-7b --schedule @daily
      hubmerge watch me/merged-7b --remove
    """
    from hubmerge.automation import watch as watching

    if lists + removes + bool(schedule) > 1:
        raise click.UsageError("--list, --remove and --schedule exclude one another")
    if lists:
        _print(watching.list_watches(repo_id), "", as_json=as_json, quiet=quiet)
    elif removes:
        _print(watching.remove_watches(repo_id), "removed: ", as_json=as_json, quiet=quiet)
    elif schedule:
        made = watching.republish_on_schedule(repo_id, schedule, flavor=flavor, source_token=source_token)
        _print([made], "", as_json=as_json, quiet=quiet)
    else:
        made = watching.watch_parents(repo_id, flavor=flavor, source_token=source_token)
        _print([made], "", as_json=as_json, quiet=quiet)


def _print(watches: Sequence[Watch], prefix: str, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(each) for each in watches]))
        return
    for each in watches:
        click.echo(each.id if quiet else harmless(f"{prefix}{each.kind} {each.id}: on {each.occasion}"))
    if not watches:
        click.echo("Nothing watches it.", err=True)
