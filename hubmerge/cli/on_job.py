"""The option `--on job[:FLAVOR]`: the same command as a job on the Hub."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
from click.core import ParameterSource

from hubmerge.cli.errors import harmless

SECRETS = {"source_token": "HUBMERGE_SOURCE_TOKEN", "target_token": "HUBMERGE_TARGET_TOKEN"}
"""Options that travel as secrets, by the variables that hold them."""

LOCAL = {"template": "--template names a file of this machine"}
"""Options that cannot travel, and why."""


def can_run_as_job(command: Callable[..., None]) -> Callable[..., None]:
    """Returns the command `merge-and-push` with `--on`."""

    @click.option(
        "--on",
        "place",
        metavar="job[:FLAVOR]",
        help="Run as a job on the Hub and show its log; FLAVOR is its hardware [default: cpu-upgrade].",
    )
    @functools.wraps(command)
    def run(place: str | None, **given: Any) -> None:
        if place is None:
            command(**given)
        else:
            _run_as_job(_flavor(place), given)

    return run


def _flavor(place: str) -> str | None:
    kind, _, flavor = place.partition(":")
    if kind != "job":
        raise click.UsageError(f"--on takes job or job:FLAVOR, not {place!r}")
    return flavor or None


def _run_as_job(flavor: str | None, given: dict[str, Any]) -> None:
    from hubmerge.automation.jobs import merge_in_job

    for name, reason in LOCAL.items():
        if given[name] is not None:
            raise click.UsageError(f"{reason}, which a job cannot read")
    end = merge_in_job(
        given["recipe"],
        given["repo_id"],
        list(_words(click.get_current_context())),
        flavor=flavor,
        secrets={variable: given[name] for name, variable in SECRETS.items()},
        on_start=lambda url: click.echo(f"Job: {harmless(url)}", err=True),
        on_line=lambda line: click.echo(harmless(line), err=True),
    )
    click.echo(json.dumps({"job": end.url, "stage": end.stage}) if given["as_json"] else end.url)
    if not end.succeeded:
        click.echo(f"Error: the job ended as {end.stage}", err=True)
        sys.exit(1)


def _words(context: click.Context) -> Iterator[str]:
    """Yields the options that were given, as words for the job's command line; secrets are not among them."""
    for parameter in context.command.params:
        name = parameter.name or ""
        is_given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if isinstance(parameter, click.Option) and is_given and name not in {"place", *SECRETS}:
            yield from _word(parameter, context.params[name])


def _word(option: click.Option, value: Any) -> tuple[str, ...]:
    if option.is_flag:
        names = option.opts if value else option.secondary_opts
        return (names[0],)
    return (option.opts[0], str(value))
