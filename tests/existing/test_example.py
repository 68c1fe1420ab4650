"""The card that stands in the docs: of Monarch-7B, from which AlphaMonarch-7B was trained, merged with another tool.

HUBMERGE_WRITE_EXAMPLES=1 writes it anew, and the drawing of the ancestry. The picture is a browser's, in which Mermaid
draws: the PNG says in its text `source-sha256` of which card it was taken.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from hubmerge.card.facts import MergeFacts, ParentFacts
from hubmerge.card.render import render_card
from hubmerge.existing.renewal import CardOptions, renew_card
from hubmerge.lineage.crawl import crawl
from hubmerge.lineage.svg import lineage_svg
from tests.card.facts import MONARCH

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "alphamonarch-card.md"
PICTURE = EXAMPLE.with_suffix(".png")
DRAWING = DOCS / "alphamonarch.svg"


def assert_written(file: Path, text: str) -> None:
    """Compares a file of the docs with what it should hold, or writes it."""
    if os.environ.get("HUBMERGE_WRITE_EXAMPLES"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


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
    assert_written(EXAMPLE, card)


def test_the_picture_in_the_docs_shows_that_card() -> None:
    with Image.open(PICTURE) as picture:
        assert isinstance(picture, PngImageFile)
        assert picture.text["source-sha256"] == hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()


def test_the_drawing_in_the_docs_is_what_the_fixture_gives(published_monarch: str) -> None:
    assert_written(DRAWING, lineage_svg(crawl(published_monarch, token=False)))
