"""The command `hubmerge republish`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from hubmerge.cli.errors import harmless
from hubmerge.cli.merge import merge_display
from hubmerge.cli.options import device_option, merge_options, run_options, source_token_option, target_token_option
from hubmerge.cli.status import status_sentence

if TYPE_CHECKING:
    from hubmerge.republish.run import Republication, RepublishOptions


@click.command()
@click.argument("repo_id", metavar="REPO")
@click.option("--if-changed", is_flag=True, help="Do nothing unless another merge would differ.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("--tag", metavar="NAME", help="Tag the new commit.")
@click.option("--commit-message", metavar="TEXT", help="Title of the commit or the pull request.")
@source_token_option("For reading the parents")
@target_token_option("For writing to REPO")
@device_option
@run_options
def republish(repo_id: str, dry_run: bool, as_json: bool, quiet: bool, **given: Any) -> None:
    """Make the merge in REPO again from its parents as they are now.

    The recipe is the one in the repo, with the options that were used for it. Output files that would not differ are
    kept; the others are made and published with a card that lists what changed, in one commit. A parent that is gone,
    gated or under another licence stops it with exit code 3.

    \b
    Example:
      hubmerge republish me/merged-7b --if-changed
    """
    from hubmerge.republish.run import republish as run

    if given["create_pr"] and given["tag"]:
        raise click.UsageError("--tag names a commit of main, which --create-pr does not make")
    options = _options(given)
    with merge_display(quiet=quiet, pushes=True) as display:
        ended = run(repo_id, options, dry_run=dry_run, progress=display)
    if as_json:
        from hubmerge.republish.summary import republication_summary

        click.echo(json.dumps(republication_summary(ended), ensure_ascii=False))
    elif ended.published:
        click.echo(ended.published.url)
    elif ended.work:
        _print_work(ended, quiet=quiet)
    elif not quiet:
        click.echo(harmless(status_sentence(ended.status)), err=True)


def _options(given: dict[str, Any]) -> RepublishOptions:
    from hubmerge.merge.plan import DEFAULT_SHARD_BYTES
    from hubmerge.republish.run import RepublishOptions

    recorded = {"lenient": False, "seed": None, "shard_size": DEFAULT_SHARD_BYTES}
    return RepublishOptions(
        merge=merge_options(given | recorded),
        if_changed=given["if_changed"],
        create_pr=given["create_pr"],
        tag=given["tag"],
        commit_message=given["commit_message"],
        target_token=given["target_token"],
    )


def _print_work(ended: Republication, *, quiet: bool) -> None:
    from rich.console import Console

    from hubmerge.cli.display import size_text
    from hubmerge.cli.status import status_table

    assert ended.work is not None, "there is something to do"
    work = ended.work
    console = Console(quiet=quiet)
    console.print(status_table(ended.status), soft_wrap=not console.is_terminal)
    files = len(work.made) + len(work.kept)
    click.echo(
        f"reads {size_text(work.read_bytes)} · makes {len(work.made)} of {files} file{'s' * (files > 1)}, "
        f"{size_text(work.write_bytes)} · keeps {len(work.kept)}"
    )
