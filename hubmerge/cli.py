"""The command line: options to one call."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from hubmerge.cli_errors import Commands
from hubmerge.cli_lineage import lineage
from hubmerge.version import __version__

if TYPE_CHECKING:
    from hubmerge.display import MergeDisplay
    from hubmerge.merge.pipeline import MergeOptions, OpenMerge
    from hubmerge.publish import Published

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


def _adding(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Returns the decorator that gives a command these options, which its help lists in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_recipe_options = _adding(
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
    click.option(
        "--source-token",
        metavar="TOKEN",
        envvar="HUBMERGE_SOURCE_TOKEN",
        show_envvar=True,
        help="For reading the parents, in place of the stored token.",
    ),
)
"""Of every command with a recipe."""

_run_options = _adding(
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
    click.option("--no-lineage", is_flag=True, help="Do not read the parents' ancestry for the model card."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("--quiet", "-q", is_flag=True, help="Print only the result."),
)
"""Of the commands that merge."""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hubmerge")
def main() -> None:
    """Merge language models from Hub to Hub: plan, stream, publish.

    A recipe is mergekit's YAML. Parents are read by byte range, the merge is pushed while it is computed, and the
    target changes in one commit at the end.

    \b
    Example:
      hubmerge plan recipe.yml
      hubmerge merge-and-push recipe.yml me/merged-7b
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: not every locale can write every name


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@_recipe_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(recipe: Path, as_json: bool, **given: Any) -> None:
    """Show what RECIPE would do, without reading any weights.

    Finds every fault that headers can show: parents and their commits, which tensors are made how, output files,
    bytes to read and write, memory and disk, licence.

    \b
    Example:
      hubmerge plan recipe.yml
    """
    from hubmerge.merge.pipeline import open_merge
    from hubmerge.merge.summary import plan_summary

    with open_merge(recipe, _options(given)) as merge:
        if as_json:
            click.echo(json.dumps(plan_summary(merge.plan, merge.checkpoints, merge.options.stream), indent=2))
        else:
            _print_plan(merge)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@_recipe_options
@_run_options
def merge(recipe: Path, out_dir: Path, as_json: bool, quiet: bool, **given: Any) -> None:
    """Merge by RECIPE into the folder OUT_DIR.

    The folder must be new or empty; the same command goes on with a merge that was interrupted.

    \b
    Example:
      hubmerge merge recipe.yml merged-7b
    """
    from hubmerge.merge.pipeline import merge_to_folder

    with _display(quiet=quiet, pushes=False) as display:
        published = merge_to_folder(recipe, out_dir, options=_options(given), progress=display)
    _print_result(published, as_json=as_json)


@main.command("merge-and-push")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("repo_id")
@click.option("--private/--public", default=None, help="Visibility of a repo that has to be created.")
@click.option(
    "--revision", default="main", show_default=True, help="Branch to publish to; created if it does not exist."
)
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("--commit-message", metavar="TEXT", help="Title of the commit or the pull request.")
@click.option(
    "--target-token",
    metavar="TOKEN",
    envvar="HUBMERGE_TARGET_TOKEN",
    show_envvar=True,
    help="For writing to REPO_ID, in place of the stored token.",
)
@_recipe_options
@_run_options
def merge_and_push(  # one option a parameter
    recipe: Path,
    repo_id: str,
    private: bool | None,
    revision: str,
    create_pr: bool,
    commit_message: str | None,
    target_token: str | None,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Merge by RECIPE straight into the Hub repo REPO_ID.

    Nothing is downloaded whole, at most two output files are on disk at a time, and readers of REPO_ID see the old
    model or the new one, never a part. The same command goes on with a merge that was interrupted.

    \b
    Example:
      hubmerge merge-and-push recipe.yml me/merged-7b --private
    """
    from hubmerge.merge.pipeline import merge_and_push as run

    if create_pr and revision != "main":
        raise click.UsageError("--create-pr goes to main: leave out --revision")
    with _display(quiet=quiet, pushes=True) as display:
        published = run(
            recipe,
            repo_id,
            revision=revision,
            private=private,
            create_pr=create_pr,
            commit_message=commit_message,
            target_token=target_token,
            options=_options(given),
            progress=display,
        )
    _print_result(published, as_json=as_json)


main.add_command(lineage)


@main.group()
def hub() -> None:
    """Run a small Hub of your own, for tests, rehearsals and machines without a network.

    \b
    Example:
      hubmerge hub serve my-hub --port 8000
    """


@hub.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="NUMBER",
    default=8000,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; the Hub is not hardened for the open internet.",
)
@click.option(
    "--transport", type=click.Choice(["xet", "lfs"]), default="xet", show_default=True, help="How large files travel."
)
def serve(folder: Path, port: int, host: str, transport: Literal["xet", "lfs"]) -> None:
    """Serve a local Hub from DIR, which keeps its repos, until Ctrl-C.

    Any Hugging Face client uses it through HF_ENDPOINT; DIR/tokens.json has a token that may write.

    \b
    Example:
      hubmerge hub serve my-hub --port 8000
    """
    from hubmerge.localhub import LocalHub

    with LocalHub(folder, host=host, port=port, transport=transport) as running:
        click.echo(f"export HF_ENDPOINT={running.endpoint}")
        click.echo(f"Serving {folder}; a token is in {folder / 'tokens.json'}. Ctrl-C stops.", err=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def _options(given: dict[str, Any]) -> MergeOptions:
    from hubmerge.merge.documents import LicenceChoice
    from hubmerge.merge.pipeline import MergeOptions
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
        stream=StreamOptions(**{name: value for name, value in stream.items() if value is not None}),
        licence=LicenceChoice(licence, reason) if licence and reason else None,
        template=given.get("template"),
        lineage=not given.get("no_lineage"),
    )


def _print_plan(merge: OpenMerge) -> None:
    from rich.console import Console

    from hubmerge.display import plan_view
    from hubmerge.merge.summary import derived_licence, memory_bytes

    memory = memory_bytes(merge.plan, merge.checkpoints, merge.options.stream)
    Console().print(plan_view(merge.plan, memory_bytes=memory, licence=derived_licence(merge.plan, merge.checkpoints)))


def _display(*, quiet: bool, pushes: bool) -> MergeDisplay:
    from huggingface_hub.utils import disable_progress_bars
    from rich.console import Console

    from hubmerge.display import MergeDisplay

    disable_progress_bars()
    return MergeDisplay(Console(stderr=True, quiet=quiet), pushes=pushes)


def _print_result(published: Published, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"url": published.url, "commit": published.commit}))
    else:
        click.echo(published.url)
