"""The command `hubmerge hub serve`."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Literal

import click


@click.group()
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
