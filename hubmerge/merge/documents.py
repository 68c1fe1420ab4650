"""The files beside the weights: config and index, recipe, lock file, and the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hubmerge.card.facts import LicenceDecision, Outcome, ParentFacts
from hubmerge.card.licence import join_licences, override_licence
from hubmerge.card.lock import LOCK_FILE, render_lock
from hubmerge.card.parents import parent_licence
from hubmerge.card.render import render_card
from hubmerge.card.validate import validate_card
from hubmerge.errors import LicenceError
from hubmerge.lineage.graph import Lineage
from hubmerge.lineage.record import LINEAGE_FILE, render_lineage
from hubmerge.merge.ancestry import ancestry_facts
from hubmerge.merge.describe import lock_facts, merge_facts, parents_of
from hubmerge.merge.plan import Plan
from hubmerge.merge.side_files import side_files
from hubmerge.publish import StagedShard
from hubmerge.weights.checkpoint import Checkpoint
from hubmerge.weights.shard_index import INDEX_FILE

CARD_FILENAME = "README.md"
RECIPE_FILENAME = "mergekit_config.yml"
"""The recipe's name in a published merge: bots and other tools look for it under this one."""


@dataclass(frozen=True)
class LicenceChoice:
    """A licence that a person chose in place of the one that follows from the parents'.

    Attributes:
        license: The Hub's id.
        reason: Printed in the card.
    """

    license: str
    reason: str


@dataclass(frozen=True)
class Documents:
    """Writes what stands beside the weights of one merge.

    Attributes:
        target: The repo id, or the folder.
        is_repo: Which of the two it is.
        side_files: Tokenizer, template, generation and processor files.
        template: A card template in place of the shipped one.
    """

    plan: Plan
    checkpoints: tuple[Checkpoint, ...]
    parents: tuple[ParentFacts, ...]
    licence: LicenceDecision
    target: str
    is_repo: bool
    side_files: Mapping[str, bytes]
    template: Path | None

    def check(self, previous_card: bytes | None) -> tuple[str, ...]:
        """Renders the card as far as it is known and has the Hub look at it; returns the Hub's warnings.

        Raises:
            CardError: The card cannot be rendered, or the Hub refuses it.
        """
        card = self._card([], previous_card)
        return validate_card(card) if self.is_repo else ()

    def files(
        self, shards: Sequence[StagedShard], previous_card: bytes | None, lineage: Lineage | None = None
    ) -> dict[str, bytes]:
        """Returns every file but the shards; lineage.json where the ancestry is known."""
        lock = render_lock(lock_facts(self.plan, self.checkpoints, shards))
        return {
            **self.side_files,
            **model_files(self.plan),
            RECIPE_FILENAME: self.plan.recipe.text.encode(),
            LOCK_FILE: lock.encode(),
            **({} if lineage is None else {LINEAGE_FILE: render_lineage(lineage).encode()}),
            CARD_FILENAME: self._card(shards, previous_card, lineage).encode(),
        }

    def _card(self, shards: Sequence[StagedShard], previous: bytes | None, lineage: Lineage | None = None) -> str:
        facts = merge_facts(
            self.plan,
            self.parents,
            self.licence,
            target=self.target,
            is_repo=self.is_repo,
            shards=shards,
            side_files=self.side_files,
        )
        facts = replace(facts, ancestry=None if lineage is None else ancestry_facts(lineage))
        return render_card(
            facts, template=self.template, previous=None if previous is None else previous.decode(errors="replace")
        )


def write_documents(
    plan: Plan,
    checkpoints: Sequence[Checkpoint],
    *,
    target: str,
    is_repo: bool,
    choice: LicenceChoice | None,
    template: Path | None,
) -> Documents:
    """Returns the writer of a merge's documents, the donor's small files read and the licence decided.

    Raises:
        LicenceError: The parents' licences forbid to publish a merge, and nobody chose otherwise.
    """
    parents = parents_of(plan, checkpoints)
    return Documents(
        plan=plan,
        checkpoints=tuple(checkpoints),
        parents=parents,
        licence=decide_licence(parents, choice, repo_id=target if is_repo else None),
        target=target,
        is_repo=is_repo,
        side_files=side_files(plan.tokenizer, plan.donor, checkpoints),
        template=template,
    )


def decide_licence(
    parents: Sequence[ParentFacts], choice: LicenceChoice | None, *, repo_id: str | None
) -> LicenceDecision:
    """Returns the licence that follows from the parents', or the chosen one.

    Args:
        parents: All of them.
        choice: What a person chose, who may know more than cards say.
        repo_id: Where the merge is published; None for a folder, in which anybody may merge anything.

    Raises:
        LicenceError: The parents' licences forbid to publish a merge, and nobody chose otherwise.
    """
    derived = join_licences([parent_licence(parent) for parent in parents], repo_id=repo_id)
    if choice is not None:
        return override_licence(derived, license=choice.license, reason=choice.reason)
    if derived.outcome is Outcome.FORBIDDEN and repo_id is not None:
        raise LicenceError(
            f"the parents' licences do not allow to publish a merge: {' '.join(derived.reasons)}",
            hint='If you may publish it all the same, say so: --license ID --license-reason "..."',
        )
    return derived


def model_files(plan: Plan) -> dict[str, bytes]:
    """Returns config.json, and the index if there are several shards."""
    files = {"config.json": _json(plan.config)}
    if len(plan.shards) > 1:
        weight_map = {tensor.info.name: shard.filename for shard in plan.shards for tensor in shard.tensors}
        total = sum(tensor.info.size_bytes for tensor in plan.tensors)
        metadata = {"total_size": total, "total_parameters": plan.parameter_count}
        files[INDEX_FILE] = _json({"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))})
    return files


def _json(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
