"""The drawing of a merge and its parents, as the Hub renders it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hubmerge.card.facts import MergeFacts, ParentFacts
from hubmerge.card.parents import parent_title

LONGEST_LABEL = 60
"""Characters of a label; Mermaid draws longer ones wider than a card."""


MOST_ABREAST = 4
"""Parents side by side; more of them stand one above the other, since a card is narrow."""

MOST_DRAWN = 8
"""Parents in all; the table above has every one."""

CLOSE = '%%{init: {"flowchart": {"wrappingWidth": 400, "nodeSpacing": 16, "rankSpacing": 32, "padding": 8}}}%%'
"""Keeps Mermaid from breaking labels at hyphens, and boxes together: what is wide is drawn small in a card."""


def lineage_graph(facts: MergeFacts) -> str:
    """Returns a Mermaid flowchart: parents first, then the merge, the base model joined by a dotted line.

    Of many parents the base and the first others are drawn, with what is left counted in one box.
    """
    shown = _drawn(facts.parents)
    left = len(facts.parents) - len(shown)
    lines = ["flowchart TD" if len(shown) <= MOST_ABREAST else "flowchart LR", f"  {CLOSE}"]
    lines += [f'  p{index}["{mermaid_label(parent_title(parent))}"]' for index, parent in enumerate(shown)]
    lines += [f'  rest["…+{left} parents"]'] if left else []
    lines += [f'  merge(["{mermaid_label(facts.repo_id or facts.title)}"])']
    lines += [f"  p{index} {_arrow(parent)} merge" for index, parent in enumerate(shown)]
    return "\n".join([*lines, "  rest --> merge"] if left else lines)


def _drawn(parents: Sequence[ParentFacts]) -> Sequence[ParentFacts]:
    if len(parents) <= MOST_DRAWN:
        return parents
    return sorted(parents, key=lambda parent: not parent.is_base)[: MOST_DRAWN - 1]


def _arrow(parent: ParentFacts) -> str:
    role = f'|"{mermaid_label(parent.role)}"|' if parent.role else ""
    return f"{'-.->' if parent.is_base else '-->'}{role}"


def mermaid_label(text: str) -> str:
    """Returns text that Mermaid draws as it is: anything but plain characters becomes an entity."""
    line = " ".join(text.split())
    short = line if len(line) <= LONGEST_LABEL else f"{line[: LONGEST_LABEL - 1]}…"
    return re.sub(r"[^A-Za-z0-9 ./_@+:,=…·-]", lambda match: f"#{ord(match[0])};", short)
