"""A plan as its card and lock file tell it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hubmerge.card.facts import ChangeFacts, FileFacts, LicenceDecision, MergeFacts, ParentFacts
from hubmerge.card.lock import (
    DeclaredLicence,
    LockedFile,
    LockedLicence,
    LockedOptions,
    LockedOutput,
    LockedParent,
    LockFacts,
)
from hubmerge.card.parents import parent_facts, parent_title
from hubmerge.merge.explain import method_words, parent_role
from hubmerge.merge.fingerprint import fingerprint, shard_contents
from hubmerge.merge.normalise import normalised_recipe
from hubmerge.merge.plan import Parent, Plan
from hubmerge.merge.planned import PlannedTokenizer
from hubmerge.publish import StagedShard
from hubmerge.version import __version__
from hubmerge.weights.checkpoint import Checkpoint
from hubmerge.weights.json_files import text_config
from hubmerge.weights.reference import ModelRef

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length")

MERGE_COMMAND = "hubmerge merge-and-push mergekit_config.yml"

PIPELINE_TAGS = (
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForMaskedLM", "fill-mask"),
)
"""Ending of an architecture's class name -> the Hub's task id."""


@dataclass(frozen=True)
class Target:
    """Where a merge goes.

    Attributes:
        name: The repo id, or the folder.
        is_repo: Which of the two it is.
    """

    name: str
    is_repo: bool

    @property
    def repo_id(self) -> str | None:
        """None for a folder."""
        return self.name if self.is_repo else None

    @property
    def title(self) -> str:
        """What readers call the merge: the name without its owner, or the folder's, whose bytes need not be text."""
        if self.is_repo:
            return self.name.rsplit("/", 1)[-1]
        return os.fsencode(Path(self.name).resolve().name).decode(errors="replace")


def parents_of(plan: Plan, checkpoints: Sequence[Checkpoint]) -> tuple[ParentFacts, ...]:
    """Returns what the card says about each parent."""
    return tuple(
        parent_facts(
            checkpoint.card,
            label=str(parent.ref),
            role=parent_role(plan.recipe, parent.ref),
            repo_id=None if parent.ref.is_local else parent.ref.path,
            sha=parent.sha,
            gated=checkpoint.gated,
            is_base=is_base_model(plan, parent),
        )
        for parent, checkpoint in zip(plan.parents, checkpoints, strict=True)
    )


def is_base_model(plan: Plan, parent: Parent) -> bool:
    """Returns whether a parent is the base model of the merge."""
    base = plan.recipe.base_model
    return isinstance(base, ModelRef) and parent.ref == base.without_adapter and not parent.is_adapter


def merge_facts(
    plan: Plan,
    parents: Sequence[ParentFacts],
    licence: LicenceDecision,
    *,
    target: Target,
    shards: Sequence[StagedShard],
    side_files: Mapping[str, bytes],
    arguments: Sequence[str] = (),
) -> MergeFacts:
    """Returns everything that the card says; before the merge `shards` is empty.

    Args:
        target: Where the merge goes.
        shards: Of the merge, once they are made.
        side_files: The tokenizer's files, among others.
        arguments: Options of the command line without which other bytes come out.
    """
    method = method_words(plan.recipe)
    architecture = architecture_of(plan.config)
    return MergeFacts(
        repo_id=target.repo_id,
        title=target.title,
        method_title=method.title,
        method_paper=method.paper,
        method_summary=method.summary,
        parents=tuple(parents),
        tags=("moe",) if plan.recipe.mixture else (),
        recipe_text=plan.recipe.text,
        normalised_recipe=normalised_recipe(plan),
        command=reproducing_command(target.repo_id, arguments),
        dtype=dtype_of(plan.config) or "float32",
        architecture=architecture,
        pipeline_tag=pipeline_tag_of(architecture, plan.config),
        parameter_count=plan.parameter_count,
        context_length=context_length_of(plan.config),
        tokenizer_from=_tokenizer_from(plan.tokenizer, parents, side_files),
        chat_template=has_chat_template(side_files),
        template_from=_template_from(plan.tokenizer, parents),
        seed=plan.recipe.seed,
        version=__version__,
        torch_version=version("torch"),
        fingerprint=fingerprint(plan),
        files=tuple(FileFacts(path=s.filename, size_bytes=s.size_bytes, sha256=s.sha256) for s in shards),
        notes=plan.notes,
        licence=licence,
    )


def lock_facts(
    plan: Plan,
    checkpoints: Sequence[Checkpoint],
    shards: Sequence[StagedShard],
    *,
    parents: Sequence[ParentFacts],
    licence: LicenceDecision,
    options: LockedOptions | None = None,
    changes: ChangeFacts | None = None,
) -> LockFacts:
    """Returns what the lock file says.

    Args:
        plan: The merge.
        checkpoints: Those of `plan.parents`.
        shards: Of the merge.
        parents: What the card says of each parent.
        licence: What the merge is published under.
        options: What was asked for beside the recipe.
        changes: Since the merge before.
    """
    made_from = shard_contents(plan)
    return LockFacts(
        hubmerge_version=__version__,
        torch_version=version("torch"),
        fingerprint=fingerprint(plan),
        seed=plan.recipe.seed,
        parents=tuple(map(_locked_parent, checkpoints, parents)),
        outputs=tuple(
            LockedOutput(
                path=shard.filename,
                size_bytes=shard.size_bytes,
                sha256=shard.sha256,
                made_from=made_from.get(shard.filename),
            )
            for shard in shards
        ),
        recipe_sha256=hashlib.sha256(plan.recipe.text.encode()).hexdigest(),
        options=options,
        licence=LockedLicence(
            license=licence.license,
            reasons=licence.reasons,
            name=licence.name,
            chosen_because=licence.override_reason,
        ),
        changes=changes,
    )


def _locked_parent(checkpoint: Checkpoint, facts: ParentFacts) -> LockedParent:
    ref = checkpoint.ref
    entries = checkpoint.files.entries().values()
    return LockedParent(
        repo_id=None if ref.is_local else ref.path,
        sha=checkpoint.sha,
        revision=ref.revision,
        files=tuple(
            LockedFile(path=entry.path, size_bytes=entry.size_bytes, sha256=entry.sha256, blob_id=entry.blob_id)
            for entry in entries
        ),
        declared=declared_licence(facts),
        gated=facts.gated,
    )


def declared_licence(parent: ParentFacts) -> DeclaredLicence:
    """Returns what a parent's card declares."""
    return DeclaredLicence(license=parent.license, name=parent.license_name, link=parent.license_link)


def reproducing_command(repo_id: str | None, arguments: Sequence[str] = ()) -> str:
    """Returns the command line that makes a merge again from its published recipe."""
    target = repo_id or "YOUR_NAME/YOUR_MODEL"
    return " ".join([MERGE_COMMAND, target, *arguments])


def dtype_of(config: Mapping[str, Any]) -> str | None:
    """Returns the dtype that a config.json states."""
    stated = config.get("dtype") or config.get("torch_dtype")
    return str(stated) if stated else None


def architecture_of(config: Mapping[str, Any]) -> str | None:
    """Returns the class that config.json names first."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else None


def pipeline_tag_of(architecture: str | None, config: Mapping[str, Any]) -> str | None:
    """Returns the Hub's task id of what an architecture does; None if it does several things or is not known."""
    if architecture is None:
        return None
    if architecture.endswith("ForConditionalGeneration"):  # of texts, of speech, or of texts with images
        return "image-text-to-text" if "vision_config" in config else None
    return next((tag for ending, tag in PIPELINE_TAGS if architecture.endswith(ending)), None)


def context_length_of(config: Mapping[str, Any]) -> int | None:
    """Returns how many tokens a model was made to read at most."""
    for holder in (config, text_config(config)):
        for key in CONTEXT_KEYS:
            if isinstance(holder.get(key), int):
                return int(holder[key])
    return None


def _tokenizer_from(
    tokenizer: PlannedTokenizer, parents: Sequence[ParentFacts], side_files: Mapping[str, bytes]
) -> str | None:
    first, *others = (parent_title(parents[number]) for number in tokenizer.parents)
    if not any("token" in path or "vocab" in path for path in side_files):
        return None
    if others:
        return f"{first}, with the tokens that {' and '.join(others)} {'has' if len(others) == 1 else 'have'} besides"
    return first if tokenizer.built is None else f"{first}, with tokens that the recipe adds"


def _template_from(tokenizer: PlannedTokenizer, parents: Sequence[ParentFacts]) -> str | None:
    if tokenizer.chat_template is None:
        return None
    origin = tokenizer.template_from
    if isinstance(origin, int):
        return f"that of {parent_title(parents[origin])}, the most common among the parents"
    return "the recipe's own" if origin is None else origin


def has_chat_template(side_files: Mapping[str, bytes]) -> bool:
    """Returns whether the tokenizer's files, by name, hold a template."""
    return "chat_template.jinja" in side_files or b'"chat_template"' in side_files.get("tokenizer_config.json", b"")
