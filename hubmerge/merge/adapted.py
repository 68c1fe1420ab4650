"""Checkpoints as planned models, with the LoRA adapters that a recipe puts on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hubmerge.merge.expr import AddLora, Load, Merge
from hubmerge.merge.findings import Findings
from hubmerge.merge.layers import role
from hubmerge.merge.planned import PlannedModel, PlannedTensor, PlannedTokenizer, from_checkpoint, planned_model
from hubmerge.tokenizer.renumber import resized
from hubmerge.weights.checkpoint import Checkpoint, parent_checkpoints
from hubmerge.weights.header import TensorInfo
from hubmerge.weights.lora import Fit, fit_adapter, module_of
from hubmerge.weights.lora_config import LoraConfig, other_base, parse_lora_config
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.shard_index import ADAPTER_FILE

USUAL_HEAD = "lm_head.weight"
"""What transformers calls the head of a language model; a checkpoint that ties it does not say."""

VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""A tokenizer has at least one of them."""

HEADED = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Endings of architectures that have a head, stored or tied."""


def stored_models(checkpoints: Mapping[ModelRef, Checkpoint], findings: Findings) -> dict[ModelRef, PlannedModel]:
    """Returns the models that a recipe names, adapters folded in.

    Parents are numbered as `parent_checkpoints` lists them. What does not fit is recorded in `findings`.
    """
    numbers = {key: number for number, key in enumerate(parent_checkpoints(checkpoints.values()))}
    models: dict[ModelRef, PlannedModel] = {}
    for ref, checkpoint in checkpoints.items():
        model = from_checkpoint(checkpoint, parent=numbers[ref.without_adapter, False])
        if checkpoint.adapter is not None:
            number = numbers[checkpoint.adapter.ref, True]
            model = with_adapter(model, checkpoint.adapter, parent=number, findings=findings)
            _note_other_base(ref, checkpoint.adapter, findings)
        models[ref] = model
    return models


def with_adapter(model: PlannedModel, adapter: Checkpoint, *, parent: int, findings: Findings) -> PlannedModel:
    """Returns a model with an adapter, parent number `parent`, added to what its weights are before any rounding."""
    config = parse_lora_config(adapter.config, label=adapter.files.label)
    stored = {name: source.info for name, source in adapter.tensors.items()}
    tensors = _with_tied_head(model, stored)
    weights = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    fit = fit_adapter(config, stored, weights, label=model.label, token_tables=_token_tables(model, tensors))
    for name, problem in fit.problems:
        findings.problem(f"{adapter.files.label}: {name}", problem)
    adapted = {name: _adapted(tensor, fit, parent) for name, tensor in tensors.items()}
    _settle_head(model, adapted, fit, config, adapter.files.label, findings)
    label = f"{model.label} + {adapter.files.label}"
    made = planned_model(label, donor=model.donor, config=model.config, tensors=adapted, tokenizer=model.tokenizer)
    return _with_vocabulary(made, model, adapter, parent, findings)


def _adapted(tensor: PlannedTensor, fit: Fit, parent: int) -> PlannedTensor:
    expr = tensor.expr
    if replacement := fit.replacements.get(tensor.name):
        expr = Load(parent, ADAPTER_FILE, replacement)
        tensor = replace(tensor, shape=replacement.shape)
    if delta := fit.deltas.get(tensor.name):
        a, b = Load(parent, ADAPTER_FILE, delta.a), Load(parent, ADAPTER_FILE, delta.b)
        unrounded = replace(expr, dtype=None) if isinstance(expr, Merge) else expr
        expr = AddLora(unrounded, a, b, delta.scale, delta.is_transposed)
    return replace(tensor, expr=expr)


def _with_tied_head(model: PlannedModel, adapter: Mapping[str, TensorInfo]) -> dict[str, PlannedTensor]:
    """Returns the model's tensors, and a head that is tied to the embedding as a tensor of its own.

    peft wraps head and embedding one by one, so an adapter may change one and not the other.
    """
    tensors = dict(model.tensors)
    embedding = _embedding(model)
    if embedding is None or not _has_head(model.config) or any(role(name, model.layers) == "head" for name in tensors):
        return tensors
    named = (f"{module_of(name)}.weight" for name in adapter)
    head = next((name for name in named if role(name, model.layers) == "head"), USUAL_HEAD)
    tensors[head] = replace(embedding, name=head)
    return tensors


def _settle_head(
    model: PlannedModel,
    adapted: dict[str, PlannedTensor],
    fit: Fit,
    config: LoraConfig,
    label: str,
    findings: Findings,
) -> None:
    """Takes a tied head out again unless the adapter makes it differ from the embedding; says so if it does."""
    head = next((name for name in adapted if name not in model.tensors), None)
    embedding = _embedding(model)
    if head is None or embedding is None:
        return
    # A weight that is replaced but no module of its own was loaded into the base, where the two are one.
    own = (name for name in fit.replacements if config.saves(name.removesuffix(".weight")))
    changed = {head, embedding.name} & {*fit.deltas, *own}
    if not changed or (config.keeps_tie and embedding.name in changed):
        del adapted[head]
        return
    findings.note(head, f"{label} changes head and embedding apart, which its base ties, so the result has both")


def _token_tables(model: PlannedModel, tensors: Mapping[str, PlannedTensor]) -> list[str]:
    """Returns the tensors with as many rows as the embedding: embedding, head, and the head's bias."""
    embedding = _embedding(model)
    rows = embedding.shape[:1] if embedding is not None else None
    return [
        name for name, t in tensors.items() if role(name, model.layers) in ("embed", "head") and t.shape[:1] == rows
    ]


def _with_vocabulary(
    made: PlannedModel, model: PlannedModel, adapter: Checkpoint, parent: int, findings: Findings
) -> PlannedModel:
    """Returns an adapted model whose config and tokenizer follow the token tables that the adapter brings.

    They have other numbers of rows where the vocabulary was enlarged for training.
    """
    sizes = {name: made.tensors[name].shape[0] for name in _token_tables(model, model.tensors) if name in made.tensors}
    old, new = _rows(model), _rows(made)
    for name, rows in sizes.items():
        if rows != new:
            findings.problem(
                f"{adapter.files.label}: {name}",
                f"it would have {rows} rows, but the embedding has {new}; the adapter must bring both or neither",
            )
    if old is None or new is None or old == new:
        return made
    tokenizer = _brought_tokenizer(made, adapter, parent, findings)
    return replace(made, config=resized(made.config, {old: new}), tokenizer=tokenizer)


def _rows(model: PlannedModel) -> int | None:
    embedding = _embedding(model)
    return embedding.shape[0] if embedding is not None else None


def _brought_tokenizer(made: PlannedModel, adapter: Checkpoint, parent: int, findings: Findings) -> PlannedTokenizer:
    """Returns the adapter's tokenizer, whose ids are its rows; the base's, with a note, if it has none."""
    if any(name in adapter.files.entries() for name in VOCABULARY_FILES):
        findings.note(adapter.files.label, f"it brings a vocabulary of {_rows(made)} rows, and its tokenizer is used")
        return PlannedTokenizer((parent,))
    findings.note(
        adapter.files.label,
        f"it brings a vocabulary of {_rows(made)} rows and no tokenizer; that of the base does not know the new tokens",
    )
    return made.tokenizer


def _embedding(model: PlannedModel) -> PlannedTensor | None:
    return next((tensor for name, tensor in model.tensors.items() if role(name, model.layers) == "embed"), None)


def _has_head(config: Mapping[str, Any]) -> bool:
    names = config.get("architectures")
    return isinstance(names, list) and bool(names) and str(names[0]).endswith(HEADED)


def _note_other_base(ref: ModelRef, adapter: Checkpoint, findings: Findings) -> None:
    trained_on = other_base(adapter.config, ref.without_adapter)
    if trained_on is not None:
        findings.note(adapter.files.label, f"it was trained on {trained_on}, not on {ref.without_adapter}")
