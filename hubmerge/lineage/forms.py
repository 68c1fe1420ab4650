"""The forms in which an ancestry is given out."""

from __future__ import annotations

from rich.console import RenderableType

from hubmerge.lineage.audit import audit
from hubmerge.lineage.draw import audit_view, lineage_view
from hubmerge.lineage.graph import Lineage
from hubmerge.lineage.mermaid import lineage_chart
from hubmerge.lineage.recipe import rebuilt_recipe
from hubmerge.lineage.record import render_lineage
from hubmerge.lineage.svg import lineage_svg

_WRITERS = {
    "json": render_lineage,
    "mermaid": lambda lineage: f"{lineage_chart(lineage)}\n",
    "recipe": rebuilt_recipe,
    "svg": lineage_svg,
}


def written(lineage: Lineage, form: str) -> str:
    """Returns an ancestry as a file's text: `json`, `mermaid`, `recipe` or `svg`.

    Raises:
        RecipeError: There is no recipe to give out.
    """
    return _WRITERS[form](lineage)


def shown(lineage: Lineage, *, is_audit: bool) -> tuple[RenderableType, bool]:
    """Returns an ancestry for the terminal, as a tree or as what is wrong in it, and whether a person must decide."""
    if not is_audit:
        return lineage_view(lineage), False
    audited = audit(lineage)
    return audit_view(audited), audited.needs_consent
