"""Two checkpoints to the plan of their difference, from headers alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from hubmerge.errors import PlanError
from hubmerge.extract.factors import RankRule
from hubmerge.extract.parts import ROLES, Choice, Kind, Part, find_parts, modules_in_memory
from hubmerge.merge.findings import Findings, sentences
from hubmerge.merge.planned import from_checkpoint
from hubmerge.merge.stream import StreamOptions
from hubmerge.weights.checkpoint import Checkpoint

MISFITS = "things keep the two models from being subtracted"

_OF_NO_WEIGHT = re.compile(
    r"_name_or_path|auto_map|architectures|(torch_)?dtype|transformers_version|use_cache|vocab_size|"
    r"tie_word_embeddings|\w+_token_ids?|task_specific_params|\w*dropout\w*|\w*pdrop|initializer_range"
)
"""Keys of config.json that change nothing in what given weights compute."""


@dataclass(frozen=True)
class ExtractOptions:
    """How a difference is made an adapter.

    Attributes:
        dtype: safetensors code of the adapter's tensors.
        seed: Of the random sketches.
        stream: Threads, read-ahead and connections at most.
        working_bytes: Most bytes of differences in memory; a larger one is worked on alone. An SVD needs up to twice as
            much besides.
        memory_bytes: Most memory in all; None for what the other two ask for.
        source_token: For reading the models; None for the token that the user logged in with, False for none.
    """

    rule: RankRule = field(default_factory=lambda: RankRule(32))
    choice: Choice = field(default_factory=Choice)
    dtype: str = "F32"
    seed: int = 0
    stream: StreamOptions = field(default_factory=StreamOptions)
    working_bytes: int = 2 << 30
    memory_bytes: int | None = None
    source_token: str | bool | None = None


@dataclass(frozen=True)
class ExtractPlan:
    """What is read, and what it becomes.

    Attributes:
        finetuned: Its number among the sources is 0.
        base: 1.
        modules: Names of all modules with weights of the base, as in memory.
        vocabulary: Rows of the fine-tuned model's embedding, where the base has another number; None otherwise.
        notes: What the reader should know, one sentence each.
    """

    finetuned: Checkpoint
    base: Checkpoint
    parts: tuple[Part, ...]
    modules: tuple[str, ...]
    vocabulary: int | None
    notes: tuple[str, ...]

    @property
    def read_bytes(self) -> int:
        """Bytes of weights to read."""
        return sum(load.tensor.size_bytes for part in self.parts for load in (part.finetuned, part.base) if load)

    def fingerprint(self, options: ExtractOptions) -> str:
        """Returns a hash of what decides the result, in hex."""
        sources = [(str(each.ref), each.sha) for each in (self.finetuned, self.base)]
        decisive = (sources, self.parts, options.rule, options.choice, options.dtype, options.seed)
        return hashlib.sha256(repr(decisive).encode()).hexdigest()


def plan_extraction(finetuned: Checkpoint, base: Checkpoint, options: ExtractOptions) -> ExtractPlan:
    """Returns the plan of an adapter.

    Raises:
        PlanError: The models are the same, do not fit together, or have nothing that is asked for.
    """
    _refuse_same(finetuned, base)
    _check_filters(options.choice)
    mine, other = from_checkpoint(finetuned, parent=0), from_checkpoint(base, parent=1)
    findings = Findings()
    parts = find_parts(mine, other, options.choice, findings)
    if findings.problems:
        raise PlanError(
            sentences(findings.problems),
            summary=MISFITS,
            hint="Name the very model that it was fine-tuned from, or leave modules out with --exclude.",
        )
    if not any(part.kind.is_low_rank for part in parts):
        raise PlanError([f"{finetuned.files.label} has no weight that could become a LoRA under these options"])
    notes = (*sentences(findings.notes), *_config_notes(finetuned, base), *_expert_notes(parts, options.rule))
    return ExtractPlan(
        finetuned=finetuned,
        base=base,
        parts=parts,
        modules=tuple(modules_in_memory(other)),
        vocabulary=_vocabulary(parts),
        notes=notes,
    )


def _refuse_same(finetuned: Checkpoint, base: Checkpoint) -> None:
    one, two = finetuned.files, base.files
    if finetuned.sha == base.sha and one.label == two.label:
        raise PlanError([f"{one.label} is both the fine-tuned model and its base; there is nothing to extract"])
    if _contents(finetuned) == _contents(base) != ():
        raise PlanError([f"{one.label} and {two.label} have the same weights; there is nothing to extract"])


def _contents(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Returns the hashes of the files with weights; nothing if one is not known."""
    entries = checkpoint.files.entries()
    hashes = [entries[path].sha256 for path in dict.fromkeys(tensor.file for tensor in checkpoint.tensors.values())]
    return tuple(sorted(known for known in hashes if known)) if all(hashes) else ()


def _check_filters(choice: Choice) -> None:
    for text in (*choice.include, *choice.exclude):
        try:
            re.compile(text)
        except re.error as error:
            roles = ", ".join(ROLES)
            raise PlanError([f"{text!r} is neither a role ({roles}) nor a regular expression: {error}"]) from None


def _vocabulary(parts: tuple[Part, ...]) -> int | None:
    whole = [part.finetuned.tensor.shape[0] for part in parts if part.kind is Kind.SAVED and part.base is None]
    return whole[0] if whole else None


def _expert_notes(parts: tuple[Part, ...], rule: RankRule) -> Iterator[str]:
    if rule.energy is not None and any(part.kind.is_low_rank and ".experts." in part.name for part in parts):
        yield "experts will have different ranks, which peft does not load where transformers joins them; use --rank"


def _config_notes(finetuned: Checkpoint, base: Checkpoint) -> Iterator[str]:
    # What only one of them states may be a default that a newer version writes down.
    keys = [key for key in base.config if key in finetuned.config and not _OF_NO_WEIGHT.fullmatch(key)]
    changed = [key for key in keys if finetuned.config[key] != base.config[key]]
    if changed:
        yield f"config.json of {finetuned.files.label} differs in {', '.join(changed)}; an adapter carries weights only"
