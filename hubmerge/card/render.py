"""Facts of a merge to the text of its README.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hubmerge.card.facts import LicenceDecision, MergeFacts
from hubmerge.card.front_matter import write_card
from hubmerge.card.lineage import lineage_graph
from hubmerge.card.markdown import FILTERS, Markdown, printed
from hubmerge.card.metadata import card_metadata, merge_metadata
from hubmerge.card.sections import fence_section, replace_sections, split_opening
from hubmerge.errors import CardError
from hubmerge.weights.front_matter import read_metadata, split_card

SECTIONS = (
    *("summary", "usage", "tuning", "parents", "changes", "method", "recipe", "diagnostics", "lineage"),
    *("licence", "tokenizer", "notes", "reproduce", "provenance"),
)
"""In the order of the card; each is a template of templates/sections, and one that prints nothing is left out."""

MEASURED = "diagnostics"
"""The section that only the merge itself can write: whoever renews its card afterwards leaves it as it is."""

CARD_TEMPLATE = "card.md.jinja"
LICENCE_TEMPLATE = "LICENSE.md.jinja"
LICENCE_FILE_MARK = "<!-- hubmerge:licences -->\n"
"""First line of a LICENSE.md that is ours to replace."""


_TITLE = re.compile(r"\s*# .*\n")


def render_card(
    facts: MergeFacts, *, template: Path | None = None, previous: str | None = None, same_merge: bool = False
) -> str:
    """Returns a README.md with front matter; the same facts give the same text.

    Of a card that is already there, text outside our sections and metadata that is not ours stay. A card without our
    sections was written by a person or by another tool: it stays whole, below ours, where it can mislead nobody about
    this merge; once moved elsewhere by hand it stays there. Where it tells of this very merge, its title and opening
    stay first, ours follow, and the rest of it comes behind them.

    Args:
        facts: The merge.
        template: Lays out a new card in place of card.md.jinja; `sections/NAME.md.jinja` beside it replaces a section.
        previous: The README.md that the target has.
        same_merge: Whether that is known to be of this merge, and not of what the repo held before.

    Raises:
        CardError: The template does not work, or the previous front matter cannot be read and so would be lost.
    """
    metadata, body = _read_previous(previous or "")
    environment = _environment(template)
    sections = {name: _section(environment, name, facts) for name in SECTIONS}
    told = {name: text for name, text in sections.items() if not (same_merge and name == MEASURED)}
    renewed = replace_sections(body, told)
    if renewed is None:
        layout = template.name if template else CARD_TEMPLATE
        own = _rendered(environment, layout, {"merge": facts, "sections": sections})
        renewed = _within(body, own) if same_merge else own + _earlier_text(body)
    return write_card(merge_metadata(card_metadata(facts), metadata), renewed)


def read_card(content: bytes) -> str:
    """Returns the text of a README.md that is going to be written anew.

    Raises:
        CardError: It is not UTF-8, so that text would be lost.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CardError(
            f"README.md is not UTF-8 (line {line} has the byte 0x{content[error.start]:02x}): its text would be lost",
            hint="Save it as UTF-8, and run the command again.",
        ) from None


def render_licence_file(licence: LicenceDecision, *, title: str) -> str:
    """Returns the LICENSE.md of a merge under several licences: their names, their texts, and who declares them."""
    return LICENCE_FILE_MARK + _rendered(_environment(None), LICENCE_TEMPLATE, {"licence": licence, "title": title})


def render_page(template: str, context: Mapping[str, Any]) -> str:
    """Returns the text that a shipped template makes of these values; there is nothing of an earlier page in it."""
    return _rendered(_environment(None), template, context)


def templates_folder() -> Path:
    """Returns the folder of the shipped templates: inside the package in a wheel, beside it in a source checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "templates"
    return shipped if shipped.is_dir() else package.parent / "templates"


@cache
def _environment(template: Path | None) -> Environment:
    """Returns where templates are found; it keeps them compiled, since a card is made before a merge and after it."""
    folders = [template.parent, templates_folder()] if template else [templates_folder()]
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folders),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # that is for HTML; `finalize` escapes for Markdown
        finalize=printed,
    )
    environment.filters.update(FILTERS)
    return environment


def _section(environment: Environment, name: str, facts: MergeFacts) -> Markdown:
    graph = facts.ancestry.chart if facts.ancestry else lineage_graph(facts)
    context = {"merge": facts, "graph": graph}
    text = _rendered(environment, f"sections/{name}.md.jinja", context)
    return Markdown(fence_section(name, text) if text.strip() else "")


def _rendered(environment: Environment, name: str, context: Mapping[str, Any]) -> str:
    try:
        return environment.get_template(name).render(context)
    except TemplateNotFound as error:
        raise CardError(f"there is no card template {error.name}") from error
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CardError(f"the card template {name} does not work: {error}") from error
    except RecursionError:
        raise CardError(f"the card template {name} does not work: it includes itself without an end") from None


def _read_previous(card: str) -> tuple[dict[str, Any], str]:
    front_matter, body = split_card(card)
    try:
        return read_metadata(front_matter), body
    except ValueError as error:
        raise CardError(
            f"the front matter of the target's README.md cannot be kept: {error}",
            hint="Repair the front matter, or delete the README.md, and publish again.",
        ) from error


def _within(body: str, own: str) -> str:
    """Returns a card's text with ours behind its opening; its title, if it has one, takes the place of ours."""
    opening, rest = split_opening(body)
    own = _TITLE.sub("", own, count=1) if _TITLE.match(opening) else own
    return "\n\n".join(part.strip() for part in (opening, own, rest) if part.strip())


def _earlier_text(body: str) -> str:
    if not body.strip():
        return ""
    return f"\n## Earlier card\n\nThe text below was here before this card; it is as it was.\n\n{body.strip()}\n"
