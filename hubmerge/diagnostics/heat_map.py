"""The heat maps of a merge as one PNG, drawn by matplotlib where that is installed.

Everything is placed by hand on one canvas, in inches from the top left corner: matplotlib's own axes, ticks and layouts
take seconds for a dozen panels.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from hubmerge.diagnostics.panels import Panel, Scale
from hubmerge.diagnostics.statistics import Matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE_FILE = "diagnostics.png"
COLUMNS = 2
DOTS_PER_INCH = 120

# Inches.
HEADING = 0.52
FOOTING = 0.36
NAME = 0.062
"""Width of a character of a row's name."""
MAP = 4.1
ROW = 0.165
"""Height of a row of cells, which holds its name in 7 points."""
LEAST_MAP = 0.7
TITLE = 0.28
TICKS = 0.32
BAR = 0.09
BAR_GAP = 0.08
BAR_LABELS = 0.72
MARGIN = 0.18
SIDE = 0.2
"""Width of the embedding's and the head's column, and the gap to the layers."""
GAP = 0.05

MOST_LINES = 48
"""Layers that are told apart by lines."""

INK = "#24292f"
PALE = "#57606a"
PAPER = "#ffffff"
"""Its own background, so that the picture reads the same on light and dark pages."""
MISSING = "#e7e9ec"

COLOUR_MAPS = {Scale.LEVEL: "viridis", Scale.AROUND_ZERO: "PuOr_r"}
"""Even steps of the one look even; both are told apart with any kind of colour vision."""
MAP_COLOURS = 101
"""Of each map; odd, so that zero has a colour of its own."""


@dataclass(frozen=True)
class Place:
    """A rectangle of the picture, in inches from its top left corner."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height


def draw_heat_map(panels: Sequence[Panel], *, title: str, note: str) -> bytes | None:
    """Returns a PNG of all panels, two side by side; None where matplotlib is not installed.

    Args:
        panels: At least one.
        title: Heading of the picture.
        note: Said below it in small print.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    places, width, height = _layout(panels)
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.text(MARGIN, 0.32, title, color=INK, fontsize=12, fontweight="bold")
    axes.text(MARGIN, height - 0.14, note, color=PALE, fontsize=7.5)
    for place, panel in zip(places, panels, strict=True):
        _draw(axes, place, panel)
    axes.set(xlim=(0, width), ylim=(height, 0))
    pixels, size = FigureCanvasAgg(figure).print_to_buffer()  # type: ignore[no-untyped-call]
    return _png(bytes(pixels), size)


def import_ahead() -> None:
    """Imports matplotlib in a thread of its own, which takes half a second, while there is other work."""
    threading.Thread(target=_import_matplotlib, name="hubmerge-import", daemon=True).start()


def _import_matplotlib() -> None:
    with suppress(ImportError):
        for module in ("matplotlib.backends.backend_agg", "matplotlib.figure", "PIL.Image"):
            import_module(module)


def _png(pixels: bytes, size: tuple[int, int]) -> bytes:
    """Returns the pixels in the colours of the maps and of letters, 256 in all: a third of the bytes."""
    from PIL import Image

    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    picture = Image.frombuffer("RGBA", size, pixels).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _palette() -> list[int]:
    """Returns red, green and blue of every colour of the maps, and of the greys between ink and paper."""
    maps = [_colours(scale)(np.arange(MAP_COLOURS))[:, :3] for scale in Scale]
    ink, paper = _rgb(INK), _rgb(PAPER)
    shades = np.linspace(0, 1, 255 - len(maps) * MAP_COLOURS)[:, None]
    colours = np.concatenate([*maps, ink + shades * (paper - ink), [_rgb(MISSING)]])
    return [int(value) for value in np.round(colours * 255).ravel()]


def _colours(scale: Scale) -> Any:
    import matplotlib

    return matplotlib.colormaps[COLOUR_MAPS[scale]].resampled(MAP_COLOURS)


def _layout(panels: Sequence[Panel]) -> tuple[list[Place], float, float]:
    """Returns where each panel's map lies, and the size of the picture."""
    lefts, right = [], MARGIN
    for column in range(min(COLUMNS, len(panels))):
        names = max(len(row) for panel in panels[column::COLUMNS] for row in panel.rows) * NAME + 0.08
        lefts.append(right + names)
        right += names + MAP + BAR_GAP + BAR + BAR_LABELS
    places: list[Place] = []
    top = HEADING
    for first in range(0, len(panels), COLUMNS):
        line = panels[first : first + COLUMNS]
        heights = [max(LEAST_MAP, len(panel.rows) * ROW) for panel in line]
        places += [Place(left, top + TITLE, MAP, height) for left, height in zip(lefts, heights, strict=False)]
        top += TITLE + max(heights) + TICKS
    return places, right, top + FOOTING


def _draw(canvas: Axes, place: Place, panel: Panel) -> None:
    names: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 7, "color": PALE}
    canvas.text(place.left, place.top - 0.07, panel.title, fontsize=9, color=INK, fontweight="bold", va="baseline")
    for number, name in enumerate(panel.rows):
        canvas.text(place.left - 0.05, place.top + (number + 0.5) * place.height / len(panel.rows), name, **names)
    inner = Place(place.left + SIDE + GAP, place.top, place.width - 2 * (SIDE + GAP), place.height)
    _cells(canvas, inner, panel, panel.values)
    _separate(canvas, inner, panel)
    _number(canvas, inner, panel)
    _column(canvas, replace(place, width=SIDE), panel, panel.embed, "embed")
    _column(canvas, replace(place, left=inner.right + GAP, width=SIDE), panel, panel.head, "head")
    _colour_bar(canvas, Place(place.right + BAR_GAP, place.top, BAR, place.height), panel)


def _cells(canvas: Axes, place: Place, panel: Panel, values: Matrix) -> None:
    """Draws a grid of cells; what is not known is grey."""
    low, high = panel.limits
    extent = (place.left, place.right, place.bottom, place.top)
    canvas.imshow(_rgb(MISSING)[None, None], extent=extent, aspect="auto")
    colours: dict[str, Any] = {"cmap": _colours(panel.scale), "vmin": low, "vmax": high}
    canvas.imshow(np.ma.masked_invalid(values), extent=extent, aspect="auto", interpolation="nearest", **colours)


def _rgb(colour: str) -> Matrix:
    """Returns red, green and blue of #rrggbb, 0 to 1."""
    return np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])


def _separate(canvas: Axes, place: Place, panel: Panel) -> None:
    """Draws thin lines between rows, and between layers where they are few enough for it."""
    rows, layers = panel.values.shape
    lines = place.top + np.arange(1, rows) * place.height / rows
    canvas.hlines(lines, place.left, place.right, color=PAPER, linewidth=0.7)
    if layers <= MOST_LINES:
        lines = place.left + np.arange(1, layers) * place.width / layers
        canvas.vlines(lines, place.top, place.bottom, color=PAPER, linewidth=0.5)


def _number(canvas: Axes, place: Place, panel: Panel) -> None:
    """Writes the numbers of a dozen layers or fewer below the map."""
    layers = panel.values.shape[1]
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64, layers) if layers / step <= 12)
    for layer in range(0, layers, step):
        middle = place.left + (layer + 0.5) * place.width / layers
        canvas.text(middle, place.bottom + 0.05, str(layer), fontsize=7, color=PALE, ha="center", va="top")


def _column(canvas: Axes, place: Place, panel: Panel, values: Matrix, name: str) -> None:
    """Draws what stands beside the layers, if it is known, with its name on it."""
    if np.isnan(values).all():
        return
    _cells(canvas, place, panel, values[:, None])
    middle = (place.left + place.right) / 2, (place.top + place.bottom) / 2
    colour = _contrast(panel, values[len(values) // 2])
    canvas.text(*middle, name, fontsize=7, color=colour, rotation=90, ha="center", va="center")


def _contrast(panel: Panel, value: float) -> str:
    """Returns a colour of letters that shows on the colour of a value."""
    low, high = panel.limits
    share = (value - low) / (high - low)
    is_dark = share < 0.5 if panel.scale is Scale.LEVEL else abs(share - 0.5) > 0.3
    return PAPER if is_dark else INK


def _colour_bar(canvas: Axes, place: Place, panel: Panel) -> None:
    low, high = panel.limits
    _cells(canvas, place, panel, np.linspace(high, low, MAP_COLOURS)[:, None])
    ticks = [high, (low + high) / 2, low]
    for tick, share, align in zip(_labels(ticks), (0, 0.5, 1), ("top", "center", "bottom"), strict=True):
        height = place.top + share * place.height
        canvas.text(place.right + 0.04, height, tick, fontsize=6.5, color=PALE, va=align)
    legend: dict[str, Any] = {"ha": "right", "va": "baseline", "fontsize": 6.5, "color": PALE}
    canvas.text(place.right + 0.45, place.top - 0.07, panel.legend, **legend)


def _labels(ticks: Sequence[float]) -> list[str]:
    """Returns the numbers with as many digits as tell them apart."""
    decimals = min(7, max(0, 2 - math.floor(math.log10(max(ticks) - min(ticks)))))
    return [f"{tick:.{decimals}f}" for tick in ticks]
