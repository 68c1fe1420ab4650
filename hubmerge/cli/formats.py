"""`--format`, as the `hf` command line has it, on every command that can print JSON."""

from __future__ import annotations

from typing import Any

import click

PARAMETERS = {"json": "as_json", "quiet": "quiet"}
"""Formats by the parameter that asks for them; `human` asks for neither."""


def add_format(command: click.Command) -> None:
    """Gives a command `--format human|json|quiet`, as far as it has `--json` and `--quiet`."""
    own = {parameter.name for parameter in command.params}
    formats = [name for name, parameter in PARAMETERS.items() if parameter in own]
    if "as_json" not in own or "format" in own:
        return
    option = click.Option(
        ["--format"],
        type=click.Choice(["human", *formats]),
        expose_value=False,
        is_eager=True,
        callback=_choose,
        help="For a person, as JSON (--json), or the bare result (--quiet)."
        if "quiet" in formats
        else "For a person, or as JSON (--json).",
    )
    command.params.append(option)


def _choose(context: click.Context, option: click.Parameter, chosen: str | None) -> Any:
    if chosen in PARAMETERS:
        # Options without a word of their own take their value from here: --format json means --json.
        context.default_map = {**(context.default_map or {}), PARAMETERS[chosen]: True}
    return chosen
