"""How a crawl tells where it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with the number of models looked at, the number known so far, and the name of the latest."""


def silent(looked_at: int, known: int, name: str) -> None:
    """Shows nothing."""
