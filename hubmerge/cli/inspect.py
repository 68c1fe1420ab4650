"""The command `hubmerge inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubmerge.cli.options import json_option, merge_options, recipe_options

if TYPE_CHECKING:
    from hubmerge.diagnostics.diagnostics import Diagnostics
    from hubmerge.diagnostics.inspect import Sample


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--sample",
    "share",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="FRACTION",
    default=0.01,
    show_default=True,
    help="Share of each tensor's rows to read, at most 65,536 values.",
)
@click.option(
    "--tensors", type=click.IntRange(min=1), metavar="NUMBER", help="Look at so many tensors only, spread over layers."
)
@json_option("the numbers")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Draw a heat map into this file.")
@recipe_options
def inspect(recipe: Path, share: float, tensors: int | None, as_json: bool, png: Path | None, **given: Any) -> None:
    """Compare the models of RECIPE with each other, without merging them.

    Reads about one per cent of the weights: how far each model is from the base, whether task vectors agree, which
    layers are equal, and whether the models belong together at all.

    \b
    Example:
      hubmerge inspect recipe.yml
      hubmerge inspect recipe.yml --tensors 64 --png models.png
    """
    from hubmerge.diagnostics.document import render_diagnostics
    from hubmerge.diagnostics.inspect import Sample
    from hubmerge.diagnostics.meaning import sentences

    found, size_bytes = _look(recipe, Sample(share=share, tensors=tensors), given)
    if png is not None:
        _write_picture(found, png)
    if as_json:
        click.echo(render_diagnostics(found, sentences=sentences(found)), nl=False)
    else:
        _print(found, size_bytes)


def _look(recipe: Path, sample: Sample, given: dict[str, Any]) -> tuple[Diagnostics, int]:
    """Returns the statistics and the bytes that were read for them."""
    from hubmerge.diagnostics.inspect import inspect as look
    from hubmerge.merge.pipeline import open_merge

    sizes: list[int] = []
    with open_merge(recipe, merge_options(given)) as merge:
        files = [checkpoint.files for checkpoint in merge.checkpoints]
        found = look(merge.plan, files, sample, on_read=sizes.append)
    return found, sum(sizes)


def _write_picture(found: Diagnostics, path: Path) -> None:
    from hubmerge.diagnostics.panels import panels
    from hubmerge.diagnostics.report import draw
    from hubmerge.errors import HubmergeError

    shown = panels(found)
    if not shown:
        raise HubmergeError("there is nothing to draw: in no layer is one model compared with another")
    picture = draw(found, shown)
    if picture is None:
        raise HubmergeError("a heat map needs matplotlib", hint="pip install 'hubmerge[plots]'")
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise HubmergeError(f"cannot write {path}: {error.strerror}") from error


def _print(found: Diagnostics, size_bytes: int) -> None:
    from rich.console import Console

    from hubmerge.cli.display import size_text
    from hubmerge.cli.heat import heat_view
    from hubmerge.diagnostics.meaning import sentences
    from hubmerge.diagnostics.panels import panels
    from hubmerge.diagnostics.report import basis

    console = Console()
    for panel in panels(found):
        console.print(heat_view(panel))
        console.print()
    for sentence in sentences(found) or ("The recipe merges no two models.",):
        console.print(f"• {sentence}", markup=False, highlight=False)
    console.print(f"{basis(found)} Read {size_text(size_bytes)}.", style="dim", highlight=False)
