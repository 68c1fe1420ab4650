"""The command `hubmerge install-hf-extension`."""

from __future__ import annotations

import json

import click

from hubmerge.cli.errors import harmless
from hubmerge.cli.options import json_option, quiet_option


@click.command("install-hf-extension")
@click.option("--force", is_flag=True, help="Replace an extension of that name which is there already.")
@json_option()
@quiet_option("Print only the name of the manifest.")
def install_hf_extension(force: bool, as_json: bool, quiet: bool) -> None:
    """Make this program the command `hf merge`.

    For those who have installed it with pip; it stays the same program, and pip updates it.

    \b
    Example:
      hubmerge install-hf-extension
    """
    from hubmerge.automation.hf_extension import install_extension

    manifest = install_extension(force=force)
    click.echo(json.dumps({"manifest": str(manifest), "command": "hf merge"}) if as_json else harmless(str(manifest)))
    if not as_json and not quiet:
        click.echo("Run it with: hf merge plan recipe.yml", err=True)
