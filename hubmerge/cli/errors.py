"""What a command that fails leaves behind: one sentence and a hint on stderr, and an exit code."""

from __future__ import annotations

import sys
from typing import Any

import click

from hubmerge.cli.stopping import leave, stoppable
from hubmerge.errors import HubmergeError


class Commands(click.Group):
    """Turns the errors of commands into one sentence on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            with stoppable():
                return super().invoke(ctx)
        except HubmergeError as error:
            _fail(str(error), error.hint, error.exit_code)
        except MemoryError:
            _fail("there is not enough memory", "Give it less work at a time (--memory-budget), or more memory.", 1)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            _fail(f"{place}{error.strerror or error}", None, 1)
        except KeyboardInterrupt:
            _complain("interrupted", "Run the same command again; it goes on from what is finished.")
            leave()


def _fail(message: str, hint: str | None, exit_code: int) -> None:
    _complain(message, hint)
    sys.exit(exit_code)


def _complain(message: str, hint: str | None) -> None:
    click.echo(f"Error: {harmless(message)}", err=True)
    if hint:
        click.echo(f"Hint: {harmless(hint)}", err=True)


def harmless(text: str) -> str:
    """Returns the text with all characters escaped that could steer a terminal; names in it are other people's."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)
