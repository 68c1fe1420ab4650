"""The commands `hubmerge plan`, `merge` and `merge-and-push`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubmerge.cli.on_job import can_run_as_job
from hubmerge.cli.options import (
    device_option,
    json_option,
    merge_options,
    recipe_options,
    run_options,
    target_token_option,
)

if TYPE_CHECKING:
    from hubmerge.card.facts import LicenceDecision
    from hubmerge.cli.display import MergeDisplay
    from hubmerge.merge.pipeline import OpenMerge
    from hubmerge.publish import Published


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@recipe_options
@device_option
@json_option("the plan")
def plan(recipe: Path, as_json: bool, **given: Any) -> None:
    """Show what RECIPE would do, without reading any weights.

    Finds every fault that headers can show: parents and their commits, which tensors are made how, output files,
    bytes to read and write, memory and disk, and the licence that follows from all ancestors.

    \b
    Example:
      hubmerge plan recipe.yml
    """
    from rich.console import Console

    from hubmerge.cli.display import crawl_progress
    from hubmerge.merge.pipeline import open_merge, planned_licence
    from hubmerge.merge.summary import plan_summary

    with open_merge(recipe, merge_options(given)) as merge:
        with crawl_progress(Console(stderr=True)) as progress:
            licence = planned_licence(merge, progress)
        if as_json:
            summary = plan_summary(merge.plan, merge.checkpoints, merge.options.stream, licence)
            click.echo(json.dumps(summary, indent=2))
        else:
            _print_plan(merge, licence)


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@recipe_options
@device_option
@run_options
def merge(recipe: Path, out_dir: Path, as_json: bool, quiet: bool, **given: Any) -> None:
    """Merge by RECIPE into the folder OUT_DIR.

    The folder must be new or empty; the same command goes on with a merge that was interrupted.

    \b
    Example:
      hubmerge merge recipe.yml merged-7b
    """
    from hubmerge.merge.pipeline import merge_to_folder

    with merge_display(quiet=quiet, pushes=False) as display:
        published = merge_to_folder(recipe, out_dir, options=merge_options(given), progress=display)
    _print_result(published, as_json=as_json)


@click.command("merge-and-push")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("repo_id")
@click.option("--private/--public", default=None, help="Visibility of a repo that has to be created.")
@click.option(
    "--revision", default="main", show_default=True, help="Branch to publish to; created if it does not exist."
)
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("--commit-message", metavar="TEXT", help="Title of the commit or the pull request.")
@target_token_option("For writing to REPO_ID")
@recipe_options
@device_option
@run_options
@can_run_as_job
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
      hubmerge merge-and-push recipe.yml me/merged-7b --on job
    """
    from hubmerge.merge.pipeline import merge_and_push as run

    if create_pr and revision != "main":
        raise click.UsageError("--create-pr goes to main: leave out --revision")
    with merge_display(quiet=quiet, pushes=True) as display:
        published = run(
            recipe,
            repo_id,
            revision=revision,
            private=private,
            create_pr=create_pr,
            commit_message=commit_message,
            target_token=target_token,
            options=merge_options(given),
            progress=display,
        )
    _print_result(published, as_json=as_json)


def _print_plan(merge: OpenMerge, licence: LicenceDecision) -> None:
    from rich.console import Console

    from hubmerge.cli.display import plan_view
    from hubmerge.merge.memory import memory_bytes

    memory = memory_bytes(merge.plan, merge.checkpoints, merge.options.stream)
    Console().print(plan_view(merge.plan, memory_bytes=memory, licence=licence))


def merge_display(*, quiet: bool, pushes: bool) -> MergeDisplay:
    """Returns the display of a merge on stderr, to be entered; huggingface_hub's own bars are off from now on."""
    from huggingface_hub.utils import disable_progress_bars
    from rich.console import Console

    from hubmerge.cli.display import MergeDisplay

    disable_progress_bars()
    return MergeDisplay(Console(stderr=True, quiet=quiet), pushes=pushes)


def _print_result(published: Published, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"url": published.url, "commit": published.commit}))
    else:
        click.echo(published.url)
