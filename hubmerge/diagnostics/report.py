"""A merge's diagnostics as files and as the card tells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hubmerge.card.facts import DiagnosticsFacts
from hubmerge.diagnostics.diagnostics import Diagnostics
from hubmerge.diagnostics.document import DIAGNOSTICS_FILE, NO_NOTES, render_diagnostics
from hubmerge.diagnostics.heat_map import PICTURE_FILE, draw_heat_map
from hubmerge.diagnostics.meaning import sentences, warnings
from hubmerge.diagnostics.panels import Panel, panels

NO_MATPLOTLIB = "The card has no heat map of the merge, which needs matplotlib: pip install 'hubmerge[plots]'"

GREY = "Grey: not merged, or equal to the base."


@dataclass(frozen=True)
class Report:
    """What a finished merge shows of its diagnostics.

    Attributes:
        files: By name; the picture is one where it could be drawn.
        facts: What the card says; None where there is nothing to say.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    facts: DiagnosticsFacts | None = None


NO_REPORT = Report()


def report_on(diagnostics: Diagnostics, *, say: Callable[[str], None], notes: Mapping[str, bytes] = NO_NOTES) -> Report:
    """Returns the report; `say` is told why there is no picture, and `notes` is as for `render_diagnostics`."""
    meaning = sentences(diagnostics)
    problems = warnings(diagnostics)
    if not diagnostics.cells and not problems:
        return NO_REPORT
    shown = panels(diagnostics)
    picture = draw(diagnostics, shown) if shown else None
    if shown and picture is None:
        say(NO_MATPLOTLIB)
    document = render_diagnostics(diagnostics, sentences=meaning, notes=notes).encode()
    files = {DIAGNOSTICS_FILE: document} | ({PICTURE_FILE: picture} if picture else {})
    facts = DiagnosticsFacts(
        sentences=meaning, warnings=problems, has_picture=picture is not None, basis=basis(diagnostics)
    )
    return Report(files, facts)


def draw(diagnostics: Diagnostics, shown: Sequence[Panel]) -> bytes | None:
    """Returns the picture of at least one panel; None where there is nothing to draw with."""
    return draw_heat_map(shown, title=f"{diagnostics.method}, by role and layer", note=f"{basis(diagnostics)} {GREY}")


def basis(diagnostics: Diagnostics) -> str:
    """Returns what the numbers were taken from, one sentence."""
    if not diagnostics.measured:
        return "No tensor is made from several models, so that nothing was compared."
    share = 100 * diagnostics.sampled / max(1, diagnostics.elements)
    carried = diagnostics.tensors - diagnostics.merged
    rest = f"; {carried:,} tensor{'s are' if carried > 1 else ' is'} not merged" if carried else ""
    part = "all" if share >= 99.5 else f"{share:.2g} % of the"
    return f"From {part} values of {diagnostics.measured:,} merged tensor{'s' * (diagnostics.measured > 1)}{rest}."
