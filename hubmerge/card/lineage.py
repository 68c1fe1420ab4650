"""The drawing of a merge and its parents, as the Hub renders it."""

from __future__ import annotations

import re

from hubmerge.card.facts import MergeFacts
from hubmerge.card.parents import parent_title

LONGEST_LABEL = 60
"""Characters of a label; Mermaid draws longer ones wider than a card."""


def lineage_graph(facts: MergeFacts) -> str:
    """Returns a Mermaid flowchart: parents above, the merge below, the base model joined by a dotted line."""
    lines = ["flowchart TD"]
    for index, parent in enumerate(facts.parents):
        lines.append(f'  p{index}["{mermaid_label(parent_title(parent))}"]')
    lines.append(f'  merge(["{mermaid_label(facts.repo_id or facts.title)}"])')
    for index, parent in enumerate(facts.parents):
        arrow = "-.->" if parent.is_base else "-->"
        role = f'|"{mermaid_label(parent.role)}"|' if parent.role else ""
        lines.append(f"  p{index} {arrow}{role} merge")
    return "\n".join(lines)


def mermaid_label(text: str) -> str:
    """Returns text that Mermaid draws as it is: anything but plain characters becomes an entity."""
    line = " ".join(text.split())
    short = line if len(line) <= LONGEST_LABEL else f"{line[: LONGEST_LABEL - 1]}…"
    return re.sub(r"[^A-Za-z0-9 ./_@+:,=…·-]", lambda match: f"#{ord(match[0])};", short)
