"""The options that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hubmerge.merge.options import MergeOptions

Command = Callable[..., None]

SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def size(text: str) -> int:
    """Returns the bytes that an option means: 500MB, 4GB, 2G, 1000000."""
    number = text.strip().lower().removesuffix("b")
    unit = number[-1:] if number[-1:] in SIZES else ""
    try:
        size_bytes = round(float(number.removesuffix(unit)) * SIZES[unit])
    except (ValueError, OverflowError):
        size_bytes = 0
    if size_bytes <= 0:
        raise click.BadParameter(f"{text!r} is not a size; write it like 4GB or 500MB")
    return size_bytes


def adding(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Returns the decorator that gives a command these options, which its help lists in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def json_option(what: str = "the result") -> Callable[[Command], Command]:
    """Returns the option of a command that prints `what` as JSON; `--format json` follows from it."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON.")


def quiet_option(effect: str = "Print only the result.") -> Callable[[Command], Command]:
    """Returns the option of a command that can say less, to the `effect`; `--format quiet` follows from it."""
    return click.option("--quiet", "-q", is_flag=True, help=effect)


def source_token_option(use: str) -> Callable[[Command], Command]:
    """Returns the option of a token to read with; `use` is said in the help."""
    return _token_option("source", use)


def target_token_option(use: str) -> Callable[[Command], Command]:
    """Returns the option of a token to write with."""
    return _token_option("target", use)


def _token_option(side: str, use: str) -> Callable[[Command], Command]:
    return click.option(
        f"--{side}-token",
        metavar="TOKEN",
        envvar=f"HUBMERGE_{side.upper()}_TOKEN",
        show_envvar=True,
        help=f"{use}, in place of the stored token.",
    )


def memory_budget_option(default: str) -> Callable[[Command], Command]:
    """Returns the option of the memory to take; `default` is said in the help."""
    return click.option("--memory-budget", type=size, metavar="SIZE", help=f"Most memory to take [default: {default}].")


recipe_options = adding(
    click.option("--lenient", is_flag=True, help="Unknown keys of the recipe are warnings instead of errors."),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        metavar="NUMBER",
        help="Seed of random masks, in place of the recipe's (default 0).",
    ),
    click.option(
        "--shard-size", type=size, default="4GB", show_default=True, help="Most bytes of tensors in one output file."
    ),
    source_token_option("For reading the parents"),
    memory_budget_option("a quarter of what is available; threads and read-ahead follow from it"),
    click.option("--no-lineage", is_flag=True, help="Do not read the ancestors; only the parents' licences count."),
)
"""Of every command with a recipe."""

device_option = click.option(
    "--device",
    metavar="NAME",
    default="cpu",
    show_default=True,
    help="What computes: cpu, cuda (every visible CUDA device) or cuda:N.",
)
"""Of the commands whose result depends on it."""

run_options = adding(
    click.option("--disk-budget", type=size, metavar="SIZE", help="Most disk to take for output files."),
    click.option(
        "--threads", type=click.IntRange(min=1), metavar="NUMBER", help="Tensors merged at a time [default: the cores]."
    ),
    click.option("--read-ahead", type=size, help="Memory for tensors on their way from the Hub [default: 537MB]."),
    click.option(
        "--connections",
        type=click.IntRange(1, 64),
        metavar="NUMBER",
        help="Requests to the Hub at a time [default: 8].",
    ),
    click.option("--license", "license_id", metavar="ID", help="Publish under this licence, not the derived one."),
    click.option("--license-reason", metavar="TEXT", help="Why under that licence; printed in the model card."),
    click.option(
        "--template",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Template of the model card, in place of the shipped one.",
    ),
    click.option("--no-diagnostics", is_flag=True, help="Neither measure the weights nor draw the card's heat map."),
    click.option("--allow-nan", is_flag=True, help="Let NaN and infinity pass; the model card warns of them."),
    json_option(),
    quiet_option(),
)
"""Of the commands that merge."""


def merge_options(given: dict[str, Any]) -> MergeOptions:
    """Returns what the options of `recipe_options` and `run_options` ask for; a command may have only the first."""
    from hubmerge.merge.licensing import LicenceChoice
    from hubmerge.merge.options import MergeOptions
    from hubmerge.merge.stream import StreamOptions

    licence, reason = given.get("license_id"), given.get("license_reason")
    if bool(licence) != bool(reason):
        raise click.UsageError("--license and --license-reason go together")
    stream = {
        "threads": given.get("threads"),
        "read_ahead_bytes": given.get("read_ahead"),
        "connections": given.get("connections"),
    }
    return MergeOptions(
        lenient=given["lenient"],
        seed=given["seed"],
        shard_bytes=given["shard_size"],
        source_token=given["source_token"],
        memory_bytes=given.get("memory_budget"),
        disk_bytes=given.get("disk_budget"),
        stream=StreamOptions(**{name: value for name, value in stream.items() if value is not None}),
        licence=LicenceChoice(licence, reason) if licence and reason else None,
        template=given.get("template"),
        lineage=not given.get("no_lineage"),
        diagnostics=not given.get("no_diagnostics"),
        allow_nan=bool(given.get("allow_nan")),
        device=given.get("device", "cpu"),
    )
