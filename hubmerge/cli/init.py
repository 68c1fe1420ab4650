"""The command `hubmerge init`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubmerge.cli.errors import harmless
from hubmerge.cli.options import json_option, quiet_option

if TYPE_CHECKING:
    from hubmerge.automation.init import RecipeRepository

EXAMPLE_TARGET = "me/merged-7b"


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--target",
    metavar="OWNER/NAME",
    default=EXAMPLE_TARGET,
    show_default=True,
    help="The repo on the Hub that the first recipe is published to.",
)
@json_option()
@quiet_option("Print only the names of the files.")
def init(folder: Path, target: str, as_json: bool, quiet: bool) -> None:
    """Write a repository of recipes into DIR: an example, and GitHub workflows that publish it and keep it up to date.

    The workflows need no token: what is printed says how to publish the first merge, and what to enter on the Hub so
    that it knows them.

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
    recipe, target = started.folder / started.recipe, started.target
    lines = [
        f"Edit {recipe}, and publish its first merge:",
        f"  hubmerge merge-and-push {shlex.quote(str(recipe))} {target}",
        "So that GitHub may go on with it, enter these claims under Trusted Publishers on "
        f"https://huggingface.co/{target}/settings:",
        *(f"  {claim} = {value}" for claim, value in started.claims.items()),
        f"{started.folder / 'README.md'} has all steps.",
    ]
    if target == EXAMPLE_TARGET:
        lines.append("`me` stands for your name on the Hub: --target writes the files with it.")
    click.echo(harmless("\n".join(lines)), err=True)
