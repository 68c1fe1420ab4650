"""The command line: options to one call, one module a family of commands."""

from __future__ import annotations

import atexit
import gc
import io
import sys

import click

from hubmerge.cli.card import card
from hubmerge.cli.clean import clean
from hubmerge.cli.dpo import dpo
from hubmerge.cli.errors import Commands
from hubmerge.cli.extract import extract_lora
from hubmerge.cli.formats import add_format
from hubmerge.cli.hf_extension import install_hf_extension
from hubmerge.cli.hub import hub
from hubmerge.cli.init import init
from hubmerge.cli.inspect import inspect
from hubmerge.cli.lineage import lineage
from hubmerge.cli.merge import merge, merge_and_push, plan
from hubmerge.cli.republish import republish
from hubmerge.cli.status import status
from hubmerge.cli.verify import verify
from hubmerge.cli.watch import watch
from hubmerge.version import __version__

COMMANDS = (
    plan,
    inspect,
    merge,
    merge_and_push,
    dpo,
    clean,
    status,
    republish,
    card,
    lineage,
    verify,
    extract_lora,
    init,
    watch,
    install_hf_extension,
    hub,
)


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
    _spare_the_collector()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: not every locale can write every name


def _spare_the_collector() -> None:
    """Has nobody look for garbage where there is none: nearly all that imports make stays, until the process ends."""
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


for command in COMMANDS:
    add_format(command)
    main.add_command(command)
