"""The command `hubmerge init`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubmerge.cli.errors import harmless

if TYPE_CHECKING:
    from hubmerge.automation.init import RecipeRepository


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--target",
    metavar="OWNER/NAME",
    default="me/merged-7b",
    show_default=True,
    help="The repo on the Hub that the first recipe is published to.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="Print only the names of the files.")
def init(folder: Path, target: str, as_json: bool, quiet: bool) -> None:
    """Write a repository of recipes into DIR: an example, and GitHub workflows that publish it and keep it up to date.

    The workflows need no token: the last lines say what to enter on the Hub so that it knows them.

    \b
    Example:
      hubmerge init my-merges --target me/merged-7b
    """
    from hubmerge.automation.init import start_repository

    started = start_repository(folder, target)
    files = [str(started.folder / path) for path in started.files]
    if as_json:
        click.echo(json.dumps({"files": files, "target": target, "claims": dict(started.claims)}))
        return
    for file in files:
        click.echo(harmless(file))
    if not quiet:
        _say_next_steps(started)


def _say_next_steps(started: RecipeRepository) -> None:
    lines = [
        f"Enter these claims under Trusted Publishers on https://huggingface.co/{started.target}/settings:",
        *(f"  {claim} = {value}" for claim, value in started.claims.items()),
        f"{started.folder / 'README.md'} has all steps.",
    ]
    click.echo(harmless("\n".join(lines)), err=True)
