"""The command `hubmerge card`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubmerge.cli.errors import harmless
from hubmerge.cli.options import adding, json_option, merge_options, recipe_options, target_token_option

if TYPE_CHECKING:
    from hubmerge.existing.renewal import CardOptions, Renewal
    from hubmerge.publish import Published

PUSHING = ("push", "create_pr")

card_options = adding(
    click.option("--repo", "repo_id", metavar="REPO", help="For a recipe: where its merge will be published."),
    click.option("--write", is_flag=True, help="For a folder: write the card into it."),
    click.option("--push", is_flag=True, help="For a repo: commit the card to it."),
    click.option("--create-pr", is_flag=True, help="For a repo: propose the card in a pull request."),
    click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing."),
    click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Print into FILE."),
    click.option("--commit-message", metavar="TEXT", help="Title of the commit or the pull request."),
    click.option("--license", "license_id", metavar="ID", help="State this licence, not the derived one."),
    click.option("--license-reason", metavar="TEXT", help="Why; printed in the card."),
    click.option(
        "--template",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Template of the card, in place of the shipped one.",
    ),
    target_token_option("For writing to a repo"),
    json_option(),
)


@click.command()
@click.argument("source", metavar="RECIPE|REPO|DIR")
@card_options
@recipe_options
def card(source: str, **given: Any) -> None:
    """Print the model card of a merge: one that a recipe would make, or one that somebody has made.

    A file is a recipe; its card lacks only the hashes of the weights. A folder or a repo holds a finished merge, made
    with hubmerge, mergekit or anything that publishes its recipe: what its files, its parents and their ancestry tell
    becomes a card, and text that people wrote stays.

    \b
    Example:
      hubmerge card recipe.yml
      hubmerge card somebody/merged-7b --create-pr
    """
    is_recipe, is_folder = Path(source).is_file(), Path(source).is_dir()
    _refuse_contradictions(given, is_recipe=is_recipe or source.endswith((".yml", ".yaml")), is_folder=is_folder)
    if is_recipe or source.endswith((".yml", ".yaml")):
        _preview(Path(source), given)
    else:
        _renew(source, given)


def _refuse_contradictions(given: dict[str, Any], *, is_recipe: bool, is_folder: bool) -> None:
    pushes = any(given[name] for name in PUSHING)
    if is_recipe and (pushes or given["write"]):
        raise click.UsageError("a recipe's card is published with its merge: use `hubmerge merge-and-push`")
    if is_folder and pushes:
        raise click.UsageError("a folder's card is written into it: use --write")
    if given["write"] and not is_folder:
        raise click.UsageError("--write is for a folder; a repo takes --push or --create-pr")
    if given["repo_id"] and not is_recipe:
        raise click.UsageError("--repo is for a recipe")


def _preview(recipe: Path, given: dict[str, Any]) -> None:
    from hubmerge.merge.preview import preview_card

    text = preview_card(recipe, given["repo_id"], options=merge_options(given))
    _print(json.dumps({"card": text}, ensure_ascii=False) + "\n" if given["as_json"] else text, given["out"])


def _renew(source: str, given: dict[str, Any]) -> None:
    from hubmerge.existing.renewal import renew_card

    renewal = renew_card(source, _card_options(given))
    writes = given["write"] or any(given[name] for name in PUSHING)
    published = None
    if writes and renewal.files and not given["dry_run"]:
        click.echo(harmless(renewal.diff), err=True, nl=False)
        published = _write(renewal, given)
    if given["as_json"]:
        _print(json.dumps(_summary(renewal, published), ensure_ascii=False) + "\n", given["out"])
    elif given["dry_run"]:
        _print(harmless(renewal.diff), given["out"])
    elif not writes:
        _print(renewal.card, given["out"])
    else:
        click.echo(published.url if published else "The card is as it should be", err=published is None)


def _card_options(given: dict[str, Any]) -> CardOptions:
    from hubmerge.existing.renewal import CardOptions

    options = merge_options(given)
    return CardOptions(
        licence=options.licence,
        template=options.template,
        lineage=options.lineage,
        source_token=options.source_token,
    )


def _write(renewal: Renewal, given: dict[str, Any]) -> Published:
    from hubmerge.existing.renewal import push_card, write_card
    from hubmerge.publish import Published

    if given["write"]:
        return Published(str(write_card(renewal)), None)
    return push_card(
        renewal,
        create_pr=given["create_pr"],
        commit_message=given["commit_message"],
        token=given["target_token"],
    )


def _summary(renewal: Renewal, published: Published | None) -> dict[str, Any]:
    facts = renewal.facts
    return {
        "repo": facts.repo_id,
        "commit_read": renewal.sha,
        "made_elsewhere": facts.made_elsewhere,
        "license": facts.licence.license,
        "license_outcome": facts.licence.outcome.name.lower(),
        "parents": [
            {"model": parent.label, "sha": parent.sha, "role": parent.role, "missing": parent.missing}
            for parent in facts.parents
        ],
        "changes": sorted(renewal.files),
        "card": renewal.card,
        "url": published.url if published else None,
        "commit": published.commit if published else None,
    }


def _print(text: str, out: Path | None) -> None:
    """Writes to a file, or to stdout in UTF-8: a card is a file whatever the terminal's encoding is."""
    if out is not None:
        out.write_text(text, encoding="utf-8")
    else:
        shown = harmless(text) if sys.stdout.isatty() else text
        click.echo(shown.encode(), nl=False)
