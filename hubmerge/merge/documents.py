"""The files beside the weights: config and index, recipe, lock file, and the model card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hubmerge.card.facts import ChangeFacts, LicenceDecision, MergeFacts, ParentFacts, TuningFacts
from hubmerge.card.licence import LICENCE_FILE
from hubmerge.card.lock import LOCK_FILE, LockedAdapter, LockedFile, LockedOptions, LockFacts, render_lock
from hubmerge.card.render import LICENCE_FILE_MARK, read_card, render_card, render_licence_file
from hubmerge.diagnostics.report import NO_REPORT, Report
from hubmerge.lineage.graph import Lineage
from hubmerge.lineage.record import LINEAGE_FILE, render_lineage
from hubmerge.merge.ancestry import Ancestry, ancestry_facts, with_licence
from hubmerge.merge.describe import Target, lock_facts, merge_facts, parents_of
from hubmerge.merge.normalise import normalised_recipe
from hubmerge.merge.plan import Plan
from hubmerge.merge.side_files import side_files
from hubmerge.publish import StagedShard
from hubmerge.weights.checkpoint import Checkpoint
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.shard_index import INDEX_FILE

CARD_FILENAME = "README.md"
RECIPE_FILENAME = "mergekit_config.yml"
"""The recipe's name in a published merge: bots and other tools look for it under this one."""

REPLACED_FILES = (CARD_FILENAME, LICENCE_FILE)
"""Files of the target that a merge may write anew, and what a person wrote in them stays."""


@dataclass(frozen=True)
class Tuned:
    """A tuning whose adapter is part of a merge, for its documents.

    Attributes:
        facts: What the card says of it.
        adapter: The local folder of the adapter, which nobody else has.
        published_as: What stands for that folder in the published recipe.
        locked: What the lock file says of it.
        files: Published beside the weights, by path.
    """

    facts: TuningFacts
    adapter: ModelRef
    published_as: str
    locked: LockedAdapter
    files: Mapping[str, bytes]

    def recipe(self, text: str) -> str:
        """Returns the text of a recipe as others can use it."""
        return text.replace(self.adapter.path, self.published_as)


@dataclass(frozen=True)
class Documents:
    """Writes what stands beside the weights of one merge.

    Attributes:
        lineage: None where it is not known.
        side_files: Tokenizer, template, generation and processor files.
        template: A card template in place of the shipped one.
        arguments: Options of the command line without which other bytes come out.
        options: What was asked for beside the recipe; recorded for those who make the merge again.
        changes: Since the merge that this one takes the place of.
        tuned: None where weights are only merged.
    """

    plan: Plan
    checkpoints: tuple[Checkpoint, ...]
    parents: tuple[ParentFacts, ...]
    licence: LicenceDecision
    lineage: Lineage | None
    target: Target
    side_files: Mapping[str, bytes]
    template: Path | None
    arguments: tuple[str, ...] = ()
    options: LockedOptions | None = None
    changes: ChangeFacts | None = None
    tuned: Tuned | None = None

    def check(self, previous: Mapping[str, bytes]) -> tuple[str, ...]:
        """Renders the card as far as it is known and has the Hub look at it; returns the Hub's warnings.

        Args:
            previous: Those of `REPLACED_FILES` that the target has.

        Raises:
            CardError: The card cannot be rendered, or the Hub refuses it.
        """
        card = self.card([], previous)
        if not self.target.is_repo:
            return ()
        from hubmerge.card.validate import validate_card

        return validate_card(card)

    def files(
        self, shards: Sequence[StagedShard], previous: Mapping[str, bytes], report: Report = NO_REPORT
    ) -> dict[str, bytes]:
        """Returns every file but the shards; `previous` is as for `check`."""
        locked = lock_facts(
            self.plan,
            self.checkpoints,
            shards,
            parents=self.parents,
            licence=self.licence,
            options=self.options,
            changes=self.changes,
        )
        lock = render_lock(locked if self.tuned is None else self._lock_of_tuning(locked, self.tuned))
        return {
            **self.side_files,
            **model_files(self.plan),
            **({} if self.tuned is None else self.tuned.files),
            RECIPE_FILENAME: self._recipe_text().encode(),
            LOCK_FILE: lock.encode(),
            **({} if self.lineage is None else {LINEAGE_FILE: render_lineage(self.lineage).encode()}),
            **licence_file(self.licence, previous.get(LICENCE_FILE), title=self.target.title),
            **report.files,
            CARD_FILENAME: self.card(shards, previous, report).encode(),
        }

    def _lock_of_tuning(self, facts: LockFacts, tuned: Tuned) -> LockFacts:
        """Returns the facts as the published recipe has them: parents at their commits, the adapter in the repo."""
        start = f"{tuned.published_as.removeprefix('./')}/"
        published = tuple(
            LockedFile(path=path.removeprefix(start), size_bytes=len(content))
            for path, content in tuned.files.items()
            if path.startswith(start)
        )
        parents = (
            replace(locked, files=published) if parent.ref == tuned.adapter else replace(locked, revision=locked.sha)
            for locked, parent in zip(facts.parents, self.plan.parents, strict=True)
        )
        digest = hashlib.sha256(self._recipe_text().encode()).hexdigest()
        outputs = facts.outputs
        if tuned.locked.fold_base != "original":  # their bytes follow from quantised weights, which have no name
            outputs = tuple(replace(output, made_from=None) for output in outputs)
        return replace(facts, parents=tuple(parents), outputs=outputs, recipe_sha256=digest, adapters=(tuned.locked,))

    def _recipe_text(self) -> str:
        """Returns the recipe as it was written; of a tuned model, which nobody wrote, the one that makes it again."""
        return self.plan.recipe.text if self.tuned is None else self.tuned.recipe(normalised_recipe(self.plan))

    def card(self, shards: Sequence[StagedShard], previous: Mapping[str, bytes], report: Report = NO_REPORT) -> str:
        """Returns README.md; before the merge `shards` is empty, and `previous` is as for `check`."""
        facts = merge_facts(
            self.plan,
            self.parents,
            self.licence,
            target=self.target,
            shards=shards,
            side_files=self.side_files,
            arguments=self.arguments,
        )
        ancestry = None if self.lineage is None else ancestry_facts(self.lineage)
        facts = replace(facts, ancestry=ancestry, diagnostics=report.facts, changes=self.changes)
        facts = facts if self.tuned is None else self._with_tuning(facts, self.tuned)
        earlier = previous.get(CARD_FILENAME)
        return render_card(facts, template=self.template, previous=None if earlier is None else read_card(earlier))

    def _with_tuning(self, facts: MergeFacts, tuned: Tuned) -> MergeFacts:
        parents = (
            each for each, parent in zip(facts.parents, self.plan.parents, strict=True) if parent.ref != tuned.adapter
        )
        text = self._recipe_text()
        can_be_repeated = tuned.facts.adapter_path is not None and tuned.locked.fold_base == "original"
        return replace(
            facts,
            tuning=tuned.facts,
            parents=tuple(parents),
            recipe_text=text,
            normalised_recipe=text,
            command=facts.command if can_be_repeated else None,
        )


def write_documents(
    plan: Plan,
    checkpoints: Sequence[Checkpoint],
    *,
    target: Target,
    licence: LicenceDecision,
    ancestry: Ancestry,
    template: Path | None,
    arguments: Sequence[str] = (),
    options: LockedOptions | None = None,
    tuned: Tuned | None = None,
) -> Documents:
    """Returns the writer of a merge's documents, the donor's small files read."""
    return Documents(
        plan=plan,
        checkpoints=tuple(checkpoints),
        parents=parents_of(plan, checkpoints),
        licence=licence,
        lineage=None if ancestry.lineage is None else with_licence(ancestry.lineage, licence),
        target=target,
        side_files=side_files(plan.tokenizer, plan.donor, checkpoints),
        template=template,
        arguments=tuple(arguments),
        options=options,
        tuned=tuned,
    )


def licence_file(licence: LicenceDecision, previous: bytes | None, *, title: str) -> dict[str, bytes]:
    """Returns LICENSE.md where the card links to it or where the one of an earlier merge would mislead.

    What a person wrote under that name stays.
    """
    is_linked = licence.is_settled and licence.link == LICENCE_FILE
    is_ours = previous is not None and previous.startswith(LICENCE_FILE_MARK.encode())
    if not (is_ours or (is_linked and previous is None)):
        return {}
    return {LICENCE_FILE: render_licence_file(licence, title=title).encode()}


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
