"""The chat templates that a recipe can name, and the choice of the most common one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_FOLDER = Path(__file__).with_name("chat_templates")


def known_template(name: str) -> str | None:
    """Returns the Jinja text of a template by its name in recipes, or None if no template has that name."""
    path = _FOLDER / f"{name}.jinja"
    return path.read_text() if name.isidentifier() and path.is_file() else None


def most_common(templates: Sequence[str]) -> str | None:
    """Returns the text that most of them are, of equally common ones the first, without regard to space around it."""
    counts = Counter(template.strip() for template in templates)
    return next((template for template, _ in counts.most_common(1)), None)
