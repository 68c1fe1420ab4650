"""The card that stands in the docs: of Monarch-7B, from which AlphaMonarch-7B was trained, merged with another tool.

HUBMERGE_WRITE_EXAMPLES=1 writes it anew.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from hubmerge.card.facts import MergeFacts, ParentFacts
from hubmerge.card.render import render_card
from hubmerge.existing.renewal import CardOptions, renew_card
from tests.card.facts import MONARCH

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "alphamonarch-card.md"


def dated(parent: ParentFacts) -> ParentFacts:
    """A parent at a commit that does not depend on when the local Hub was filled."""
    sha = hashlib.sha1((parent.repo_id or "").encode()).hexdigest()
    return replace(parent, sha=sha if parent.sha else None)


def with_weights(facts: MergeFacts) -> MergeFacts:
    """What headers and config.json of seven billion parameters would add, which the local Hub has no room for."""
    return replace(
        facts,
        dtype=MONARCH.dtype,
        architecture=MONARCH.architecture,
        pipeline_tag=MONARCH.pipeline_tag,
        parameter_count=MONARCH.parameter_count,
        context_length=MONARCH.context_length,
        tokenizer_from=MONARCH.tokenizer_from,
        chat_template=MONARCH.chat_template,
        version=MONARCH.version,
        files=MONARCH.files[1:3],
        notes=(),
    )


def test_the_card_in_the_docs_is_what_the_fixture_gives(published_monarch: str) -> None:
    facts = renew_card("mlabonne/Monarch-7B", CardOptions(source_token=False)).facts
    shas = {parent.sha: dated(parent).sha for parent in facts.parents if parent.sha}
    recipe = facts.normalised_recipe or ""
    for old, new in shas.items():
        recipe = recipe.replace(old or "", new or "")
    stable = replace(facts, parents=tuple(map(dated, facts.parents)), normalised_recipe=recipe)
    card = render_card(with_weights(stable))
    if os.environ.get("HUBMERGE_WRITE_EXAMPLES"):
        EXAMPLE.parent.mkdir(exist_ok=True)
        EXAMPLE.write_text(card, encoding="utf-8")
    assert card == EXAMPLE.read_text(encoding="utf-8")
