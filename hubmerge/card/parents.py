"""What a parent's own card says of it; such cards are written by anybody and promise nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hubmerge.card.facts import ParentFacts, ParentLicence
from hubmerge.card.front_matter import texts

HUB = "https://huggingface.co"

LONGEST_LICENCE = 300
"""Characters of what a card declares; a name cut off is one that nobody knows, so that nothing is derived from it."""


def parent_facts(
    metadata: Mapping[str, Any],
    *,
    label: str,
    role: str,
    repo_id: str | None = None,
    sha: str | None = None,
    gated: bool = False,
    is_base: bool = False,
    missing: str | None = None,
) -> ParentFacts:
    """Returns a parent with what its card declares.

    Args:
        metadata: Front matter of its README.md at that commit; empty if it has none.
        label: The model as the recipe writes it.
        role: What it is to the merge.
        repo_id: None for a local folder.
        sha: The commit that was read.
        gated: Whether the Hub asks its users to agree to terms.
        is_base: Whether it is the merge's base model.
        missing: Why its card cannot be read, where that is so.
    """
    return ParentFacts(
        label=label,
        role=role,
        repo_id=repo_id,
        sha=sha,
        license=", ".join(texts(metadata.get("license")))[:LONGEST_LICENCE] or None,
        license_name=", ".join(texts(metadata.get("license_name")))[:LONGEST_LICENCE] or None,
        license_link=next(iter(texts(metadata.get("license_link"))), None),
        gated=gated,
        tags=texts(metadata.get("tags")),
        languages=texts(metadata.get("language")),
        datasets=texts(metadata.get("datasets")),
        is_base=is_base,
        missing=missing,
    )


def parent_licence(parent: ParentFacts) -> ParentLicence:
    """Returns what a parent declares about its licence, with a link that leads there from any other repo."""
    return ParentLicence(
        label=parent_title(parent),
        license=parent.license,
        name=parent.license_name,
        link=_absolute_link(parent),
        page=commit_url(parent),
        unseen=_unseen(parent),
    )


def parent_title(parent: ParentFacts) -> str:
    """Returns what readers call a parent: its id, or the last part of a local path, which is nobody else's business."""
    return parent.repo_id or re.split(r"[/\\]", parent.label.rstrip("/\\"))[-1]


def commit_url(parent: ParentFacts) -> str | None:
    """Returns where the Hub shows a parent as it was read; None for a local folder."""
    if parent.repo_id is None:
        return None
    return f"{HUB}/{parent.repo_id}/tree/{parent.sha}" if parent.sha else f"{HUB}/{parent.repo_id}"


def _unseen(parent: ParentFacts) -> str | None:
    if parent.missing is None:
        return None
    return "a folder of another machine" if parent.repo_id is None else "deleted or private"


def _absolute_link(parent: ParentFacts) -> str | None:
    link = parent.license_link
    if link is None or link.startswith(("https://", "http://")):
        return link
    if parent.repo_id is None:
        return None
    return f"{HUB}/{parent.repo_id}/blob/{parent.sha or 'main'}/{link.removeprefix('./')}"
