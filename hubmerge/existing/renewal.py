"""The card of a merge that is there already, renewed: what it becomes, what changes, and the way there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hubmerge.card.facts import MergeFacts
from hubmerge.card.licence import LICENCE_FILE
from hubmerge.card.render import render_card
from hubmerge.card.validate import validate_card
from hubmerge.errors import PublishError
from hubmerge.existing.describe import ancestry_behind, existing_facts, licence_of
from hubmerge.existing.found import FoundMerge, file_of, open_merged
from hubmerge.existing.parents import seen_parents
from hubmerge.lineage.graph import Lineage
from hubmerge.lineage.record import LINEAGE_FILE, render_lineage
from hubmerge.merge.ancestry import with_licence
from hubmerge.merge.documents import CARD_FILENAME, RECIPE_FILENAME, licence_file
from hubmerge.merge.licensing import LicenceChoice
from hubmerge.publish import Published
from hubmerge.publish.small_files import SmallCommit, commit_small_files
from hubmerge.weights.reference import ModelRef


@dataclass(frozen=True)
class CardOptions:
    """How a card is renewed.

    Attributes:
        licence: In place of the one that follows from the ancestors'.
        template: A card template in place of the shipped one.
        lineage: Whether the parents' own parents are read.
        source_token: For reading; None for the token that the user logged in with, False for none.
    """

    licence: LicenceChoice | None = None
    template: Path | None = None
    lineage: bool = True
    source_token: str | bool | None = None


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """A card before and after, and the files that belong beside it and are not as they should be.

    Attributes:
        ref: The repo or the folder.
        sha: The commit that was read; None for a folder.
        beside: Those files, by name.
        present: Names of all files that were there.
    """

    ref: ModelRef
    sha: str | None
    facts: MergeFacts
    previous: str
    card: str
    beside: Mapping[str, bytes]
    present: frozenset[str]

    @property
    def files(self) -> dict[str, bytes]:
        """What has to be written; nothing if all is as it should be."""
        card = {} if self.card == self.previous else {CARD_FILENAME: self.card.encode()}
        return {**card, **self.beside}

    @property
    def diff(self) -> str:
        """The change of the card as a unified diff, and a line for each other file; empty if nothing changes."""
        before, after = (re.findall(r"[^\n]*\n|[^\n]+", text) for text in (self.previous, self.card))
        lines = difflib.unified_diff(before, after, f"a/{CARD_FILENAME}", f"b/{CARD_FILENAME}")
        changes = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
        kinds = {name: "changed" if name in self.present else "new" for name in self.beside}
        return changes + "".join(f"{kind} file {name}\n" for name, kind in kinds.items())


def renew_card(name: str, options: CardOptions | None = None) -> Renewal:
    """Returns the card that a merge should have, whoever made it; nothing is written.

    Args:
        name: `org/name`, `org/name@revision` or a folder with mergekit's output.
        options: How.

    Raises:
        SourceError: It cannot be read, or publishes no recipe.
        TransferError: The Hub does not answer.
        CardError: Its front matter cannot be kept, or the template does not work.
    """
    options = options or CardOptions()
    with open_merged(name, token=options.source_token) as merge:
        parents = seen_parents(merge, token=options.source_token)
        ancestry = ancestry_behind(merge, parents, token=options.source_token, is_wanted=options.lineage)
        licence = licence_of(merge, parents, ancestry, options.licence)
        lineage = None if ancestry.lineage is None else with_licence(ancestry.lineage, licence)
        facts = existing_facts(merge, parents, licence, lineage)
        card = render_card(facts, template=options.template, previous=merge.card, same_merge=True)
        return Renewal(
            ref=merge.ref,
            sha=merge.sha,
            facts=facts,
            previous=merge.card,
            card=card,
            beside=_beside(merge, facts, lineage, is_renewed=card != merge.card),
            present=frozenset(merge.files.entries()),
        )


def push_card(
    renewal: Renewal,
    *,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | None = None,
) -> Published:
    """Commits a renewed card, and what belongs beside it, to the repo that it was read from.

    Args:
        renewal: Of a repo, in which something changes.
        create_pr: Open a pull request instead, which anybody may who can read the repo.
        commit_message: Title of the commit or the pull request.
        token: For writing; None for the token that the user logged in with.

    Raises:
        CardError: The Hub refuses the card.
        TargetMovedError: The repo got another commit since it was read.
        PublishError: The repo cannot be written.
    """
    if renewal.sha is None:
        raise PublishError(f"{renewal.ref} is a folder, not a repo", hint="Write the card into it instead.")
    validate_card(renewal.card)
    commit = SmallCommit(
        repo_id=renewal.ref.path,
        revision=renewal.ref.revision,
        parent=renewal.sha,
        message=commit_message or "Tell how this merge was made",
        create_pr=create_pr,
    )
    return commit_small_files(commit, renewal.files, token=token)


def write_card(renewal: Renewal) -> Path:
    """Writes a renewed card, and what belongs beside it, into the folder that it was read from; returns its place."""
    for name, content in renewal.files.items():
        (renewal.ref.folder / name).write_bytes(content)
    return renewal.ref.folder / CARD_FILENAME


def _beside(merge: FoundMerge, facts: MergeFacts, lineage: Lineage | None, *, is_renewed: bool) -> dict[str, bytes]:
    """Returns the files that are absent, or ours and out of date; the graph stays with the card that tells of it."""
    graph = {} if lineage is None else {LINEAGE_FILE: render_lineage(lineage).encode()}
    terms = licence_file(facts.licence, file_of(merge, LICENCE_FILE), title=merge.title)
    wanted = {RECIPE_FILENAME: merge.recipe_text.encode(), **graph, **terms}
    ours = {*terms, *(graph if is_renewed else ())}
    present = merge.files.entries()
    return {
        name: content
        for name, content in wanted.items()
        if name not in present or (name in ours and file_of(merge, name) != content)
    }
