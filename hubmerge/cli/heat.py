"""A heat map on the terminal: one block of colour a layer."""

from __future__ import annotations

import math
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hubmerge.diagnostics.panels import Panel, Scale
from hubmerge.diagnostics.statistics import Matrix

Colour = tuple[int, int, int]

STOPS: dict[Scale, tuple[Colour, ...]] = {
    Scale.LEVEL: ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)),
    Scale.AROUND_ZERO: ((84, 39, 136), (153, 142, 195), (247, 247, 247), (241, 163, 64), (179, 88, 6)),
}
"""Colours at equal distances: those of the pictures."""

SHADES = "·░▒▓█"
"""What stands in for colours where there are none, least first."""


def heat_view(panel: Panel) -> RenderableType:
    """Returns a panel: a row of blocks for each role or model, its mean, and what the colours at both ends mean."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, values in zip(panel.rows, panel.values, strict=True):
        table.add_row(name, _blocks(values, panel), _mean(values))
    for name, column in (("embed", panel.embed), ("head", panel.head)):
        if (column == column[0]).all():
            table.add_row(name, _blocks(column[:1], panel), _mean(column[:1]))
    low, high = panel.limits
    ends = Text.assemble(
        (f"{panel.legend}: {low:.3g} ", "dim"),
        *(_block(low + (high - low) * step / 8, panel) for step in range(9)),
        (f" {high:.3g}", "dim"),
    )
    return Group(Text(panel.title, style="bold"), table, ends)


def _blocks(values: Matrix, panel: Panel) -> Text:
    return Text.assemble(*(_block(float(value), panel) for value in values))


def _block(value: float, panel: Panel) -> Text:
    if math.isnan(value):
        return Text(" ")
    low, high = panel.limits
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    red, green, blue = _colour(share, STOPS[panel.scale])
    return Text(
        SHADES[round(share * (len(SHADES) - 1))], style=f"rgb({red},{green},{blue}) on rgb({red},{green},{blue})"
    )


def _colour(share: float, stops: tuple[Colour, ...]) -> Colour:
    place = share * (len(stops) - 1)
    number = min(int(place), len(stops) - 2)
    lower, upper = list(pairwise(stops))[number]
    red, green, blue = (round(a + (b - a) * (place - number)) for a, b in zip(lower, upper, strict=True))
    return red, green, blue


def _mean(values: Matrix) -> str:
    known = [float(value) for value in values if not math.isnan(value)]
    return f"{math.fsum(known) / len(known):.3g}" if known else ""
