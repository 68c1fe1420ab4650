"""The files beside an adapter's weights: adapter_config.json, the tokenizer, the model card."""

from __future__ import annotations

import fnmatch
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from hubmerge.card.facts import LicenceDecision, ParentFacts
from hubmerge.card.front_matter import write_card
from hubmerge.card.licence import join_licences
from hubmerge.card.parents import parent_facts, parent_licence
from hubmerge.card.render import render_page
from hubmerge.extract.config import adapter_config
from hubmerge.extract.plan import ExtractOptions, ExtractPlan
from hubmerge.extract.report import Outcome, Report
from hubmerge.tokenizer.read import TOKENIZER_FILES
from hubmerge.version import __version__
from hubmerge.weights.checkpoint import ADAPTER_CONFIG_FILE, CARD_FILE, Checkpoint
from hubmerge.weights.dtypes import FLOAT_NAMES
from hubmerge.weights.files import Files, read_small

TEMPLATE = "adapter.md.jinja"

SMALL_FILE_BYTES = 64 << 20


def documents(
    plan: ExtractPlan, kept: Sequence[Outcome], found: Report, options: ExtractOptions, *, title: str
) -> dict[str, bytes]:
    """Returns every file but the weights.

    Raises:
        SourceError: A file of the tokenizer is too large to be one.
        TransferError: One did not arrive.
    """
    config = adapter_config(plan, kept, options.rule)
    return {
        **_tokenizer(plan.finetuned.files),
        ADAPTER_CONFIG_FILE: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(),
        CARD_FILE: card(plan, found, options, title=title).encode(),
    }


def card(plan: ExtractPlan, found: Report, options: ExtractOptions, *, title: str) -> str:
    """Returns README.md."""
    parents = _facts(plan.finetuned, "fine-tuned model"), _facts(plan.base, "base model")
    licence = join_licences([parent_licence(parent) for parent in parents])
    body = render_page(
        TEMPLATE,
        {
            "title": title,
            "finetuned": parents[0],
            "base": parents[1],
            "report": found,
            "rule": options.rule,
            "dtype": FLOAT_NAMES[options.dtype],
            "vocabulary": plan.vocabulary,
            "notes": plan.notes,
            "command": command(plan, options),
            "version": __version__,
            "licence": licence,
        },
    )
    return write_card(_metadata(parents[1], licence), body)


def command(plan: ExtractPlan, options: ExtractOptions) -> str:
    """Returns the command line that makes the adapter again, from the same commits."""
    choice, rule = options.choice, options.rule
    words = ["hubmerge", "extract-lora", _pinned(plan.finetuned), _pinned(plan.base), "OUT_DIR"]
    if rule.energy is None:
        words += ["--rank", str(rule.most)]
    else:
        words += ["--energy", str(rule.energy), "--max-rank", str(rule.most)]
    for text in choice.include:
        words += ["--include", text]
    for text in choice.exclude:
        words += ["--exclude", text]
    words += [] if choice.embeddings else ["--no-embeddings"]
    words += ["--save-norms"] if choice.save_norms else []
    words += ["--dtype", FLOAT_NAMES[options.dtype], "--seed", str(options.seed)]
    return shlex.join(words)


def _pinned(checkpoint: Checkpoint) -> str:
    """Returns a model at its commit; of a folder only the last part of its path, which is nobody else's business."""
    ref = checkpoint.ref
    return Path(ref.path).name if ref.is_local else f"{ref.path}@{checkpoint.sha}"


def _facts(checkpoint: Checkpoint, role: str) -> ParentFacts:
    ref = checkpoint.ref
    return parent_facts(
        checkpoint.card,
        label=str(ref),
        role=role,
        repo_id=None if ref.is_local else ref.path,
        sha=checkpoint.sha,
        gated=checkpoint.gated,
        is_base=role == "base model",
    )


def _metadata(base: ParentFacts, licence: LicenceDecision) -> dict[str, object]:
    metadata = {
        "base_model": base.repo_id,
        "base_model_relation": "adapter" if base.repo_id else None,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "peft", "hubmerge"],
        "license": licence.license,
        "license_name": licence.name,
        "license_link": licence.link,
    }
    return {key: value for key, value in metadata.items() if value}


def _tokenizer(files: Files) -> dict[str, bytes]:
    """Returns the fine-tuned model's tokenizer and chat template, which may differ from the base's."""
    names = [name for name in files.entries() if any(fnmatch.fnmatchcase(name, each) for each in TOKENIZER_FILES)]
    return {name: read_small(files, name, limit_bytes=SMALL_FILE_BYTES) for name in names}
