"""The forms in which an ancestry is given out as text."""

from __future__ import annotations

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
