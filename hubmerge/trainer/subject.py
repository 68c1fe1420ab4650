"""The model that is tuned, before it is downloaded or even merged: its sizes and its tokenizer."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubmerge.errors import DataError
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import open_merge
from hubmerge.merge.plan import Plan
from hubmerge.merge.recipe.model import Recipe
from hubmerge.merge.side_files import side_files
from hubmerge.trainer.shape import ModelShape, shape_from, shape_of
from hubmerge.weights.checkpoint import Checkpoint, open_checkpoint
from hubmerge.weights.files import Files
from hubmerge.weights.reference import ModelRef

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "config.json",
)


@dataclass(frozen=True)
class Subject:
    """What is known of the model to tune.

    Attributes:
        label: `org/name@0123abc`, a folder, or what the merge is.
        sha: The commit; None for a folder or a merge.
        tokenizer: As transformers loads it.
        tokenizer_sha256: Of the files that it was loaded from, with config.json.
        notes: What the reader should know of it, one sentence each.
    """

    label: str
    sha: str | None
    shape: ModelShape
    tokenizer: Any
    tokenizer_sha256: str
    notes: tuple[str, ...]


def open_subject(model: ModelRef | Recipe, *, token: str | bool | None = None) -> Subject:
    """Returns what headers, config and tokenizer say; no weights are read.

    Raises:
        SourceError: The model, or a parent of the merge, cannot be used.
        PlanError: The parents of the merge do not fit together.
        BudgetError: Its memory cannot be predicted.
        DataError: It has no tokenizer that transformers loads, or one with more tokens than embeddings.
    """
    if isinstance(model, Recipe):
        return _merge(model, token=token)
    checkpoint = open_checkpoint(model, token=token)
    try:
        files = {name: _content(checkpoint.files, name) for name in _TOKENIZER_FILES if _has(checkpoint.files, name)}
        label = str(model.path if checkpoint.sha is None else f"{model.path}@{checkpoint.sha[:7]}")
        shape, tokenizer = shape_of(checkpoint), _loaded(files, label)
        check_vocabulary(shape, tokenizer)
        return Subject(label, checkpoint.sha, shape, tokenizer, _digest(files), checkpoint.notes)
    finally:
        checkpoint.files.close()


def _merge(recipe: Recipe, *, token: str | bool | None) -> Subject:
    with open_merge(recipe, MergeOptions(source_token=token if isinstance(token, str) else None)) as merge:
        plan = merge.plan
        models = [parent for parent in merge.checkpoints if not _is_adapter(plan, parent)]
        files = dict(side_files(plan.tokenizer, plan.donor, models))
        files["config.json"] = _content(models[plan.donor].files, "config.json")
        label = f"{recipe.method} merge of {' and '.join(parent.label for parent in plan.parents)}"
        shapes = {tensor.info.name: tensor.info.shape for tensor in plan.tensors}
        shape, tokenizer = shape_from(shapes, plan.config), _loaded(files, label)
        check_vocabulary(shape, tokenizer)
        return Subject(label, None, shape, tokenizer, _digest(files), plan.notes)


def check_vocabulary(shape: ModelShape, tokenizer: Any) -> None:
    """Raises DataError if the tokenizer knows tokens that the model has no embedding for."""
    if len(tokenizer) > shape.vocabulary:
        raise DataError(
            f"the tokenizer has {len(tokenizer):,} tokens and the model embeddings for {shape.vocabulary:,}",
            hint="Give the model the tokenizer that it was trained with; a merge takes one by `tokenizer:`.",
        )


def _is_adapter(plan: Plan, checkpoint: Checkpoint) -> bool:
    return any(parent.is_adapter and parent.ref == checkpoint.ref for parent in plan.parents)


def _has(files: Files, name: str) -> bool:
    return name in files.entries()


def _content(files: Files, name: str) -> bytes:
    return files.read(name, 0, files.entries()[name].size_bytes)


def _digest(files: dict[str, bytes]) -> str:
    """Returns the SHA-256 of all names and contents."""
    parts = [f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in sorted(files.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _loaded(files: dict[str, bytes], label: str) -> Any:
    """Returns the tokenizer of these files; transformers reads them from a folder, which is gone afterwards."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="hubmerge-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
            reason = str(error).strip().partition("\n")[0].replace(folder, label)
            raise DataError(f"the tokenizer of {label} cannot be loaded: {reason}") from None
