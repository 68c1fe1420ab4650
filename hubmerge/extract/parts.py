"""Which tensors of a fine-tuned model become low-rank factors and which are copied, told by names and shapes.

The names of an adapter are those of the model in memory, and two checkpoints of one model may differ in what stands in
front: a model that was saved without its head lacks the prefix that the head's model gives it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from hubmerge.merge.expr import Load
from hubmerge.merge.findings import Findings
from hubmerge.merge.layers import Role, names_tower, part_in_layer, role
from hubmerge.merge.planned import PlannedModel, PlannedTensor
from hubmerge.weights.dtypes import is_float
from hubmerge.weights.lora import bias_shows_transposed

BODY_NAMES: Mapping[str, str] = {"h": "transformer", "blocks": "transformer", "layers": "model"}
"""What a list of layers is called -> the attribute that holds it and the embedding in a model with a head."""

USUAL_HEAD = "lm_head"
"""What transformers calls the head of a language model; a checkpoint that ties it does not say."""

ROLES = ("embed", "head", "norm", "layer", "other")

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


class Kind(Enum):
    """What becomes of a tensor."""

    LINEAR = "factors of a weight stored as (out, in)"
    TRANSPOSED = "factors of a weight stored as (in, out), as GPT-2's"
    EMBEDDING = "factors of an embedding, (vocabulary, hidden)"
    SAVED = "a copy, its module saved whole"
    BIAS = "a copy of a bias whose weight is a matrix"
    LEFT_OUT = "compared, so that the error is known, and not kept"

    @property
    def is_low_rank(self) -> bool:
        """Whether it becomes a pair of factors."""
        return self in (Kind.LINEAR, Kind.TRANSPOSED, Kind.EMBEDDING)


@dataclass(frozen=True)
class Part:
    """One tensor of the fine-tuned model.

    Attributes:
        name: As the model in memory calls it: `model.layers.0.self_attn.q_proj.weight`.
        group: Its module without layer numbers, for reports.
        base: None where the two cannot be subtracted, as their vocabularies differ.
        tied_head: The module of the head that shares an embedding's weight in both models.
    """

    name: str
    group: str
    kind: Kind
    finetuned: Load
    base: Load | None
    tied_head: str | None = None

    @property
    def module(self) -> str:
        """The module that has it."""
        return self.name.rpartition(".")[0]

    @property
    def is_embedding(self) -> bool:
        """Whether it is the whole table of a vocabulary's vectors."""
        return self.kind is Kind.EMBEDDING or self.base is None

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that it is the weight of."""
        return (self.module,) if self.tied_head is None else (self.module, self.tied_head)

    @property
    def matrix_bytes(self) -> int:
        """Bytes of its difference in fp32."""
        return 4 * self.finetuned.tensor.elements


@dataclass(frozen=True)
class Choice:
    """What a person wants of the difference.

    Attributes:
        include: Roles, or regular expressions that are searched in module names; empty for everything.
        exclude: The same, taken away again.
        embeddings: Whether embedding and head are kept.
        save_norms: Whether norms and biases are copied.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    embeddings: bool = True
    save_norms: bool = False

    def wants(self, module: str, kind: Role) -> bool:
        """Returns whether a module is asked for."""
        included = not self.include or any(_matches(text, module, kind) for text in self.include)
        return included and not any(_matches(text, module, kind) for text in self.exclude)


def _matches(text: str, module: str, kind: Role) -> bool:
    return text == kind if text in ROLES else bool(re.search(text, module))


def find_parts(finetuned: PlannedModel, base: PlannedModel, choice: Choice, findings: Findings) -> tuple[Part, ...]:
    """Returns what to make of each tensor, in the base's order; what cannot be compared is recorded in `findings`."""
    ours, theirs = _in_memory(finetuned), _in_memory(base)
    parts = []
    for name in dict.fromkeys([*theirs, *ours]):
        mine = finetuned.find(ours.get(name, name))
        other = base.find(theirs.get(name, name))
        kind = role(theirs[name], base.layers) if name in theirs else role(ours[name], finetuned.layers)
        if not choice.wants(name.rpartition(".")[0], kind):
            continue
        if mine is None or other is None:
            _note_missing(name, kind, mine or other, (finetuned if mine is None else base).label, findings)
        elif part := _part(name, _Pair(mine, other, finetuned, base), kind, choice, findings):
            parts.append(part)
    typed = _with_bias_kinds(_with_transposed(parts, ours, finetuned))
    return tuple(_with_tied_heads(typed) if _ties(finetuned) and _ties(base) else typed)


def modules_in_memory(model: PlannedModel) -> list[str]:
    """Returns every module that has weights, by its name in a model with a head."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in _in_memory(model)))


def _in_memory(model: PlannedModel) -> dict[str, str]:
    """Returns the stored name of each tensor by its name in a model with a head."""
    prefix = model.layers.prefix if model.layers else ""
    body = BODY_NAMES.get(prefix.removesuffix("."))
    if body is None:
        return {name: name for name in model.tensors}
    return {name if role(name, model.layers) == "head" else f"{body}.{name}": name for name in model.tensors}


@dataclass(frozen=True)
class _Pair:
    """A tensor in both models."""

    mine: PlannedTensor
    other: PlannedTensor
    finetuned: PlannedModel
    base: PlannedModel


def _note_missing(name: str, kind: Role, there: PlannedTensor | None, lacking: str, findings: Findings) -> None:
    if there is not None and _is_matrix(name, there.shape) and kind != "other":
        findings.problem(name, f"{lacking} lacks it")
    elif there is not None:
        findings.note(name, f"left out; {lacking} lacks it")


def _part(name: str, pair: _Pair, kind: Role, choice: Choice, findings: Findings) -> Part | None:
    mine, other = pair.mine, pair.other
    if not (is_float(mine.dtype) and is_float(other.dtype)):
        return None
    assert isinstance(mine.expr, Load)
    assert isinstance(other.expr, Load)
    fate = _fate(name, mine.shape, kind, choice)
    part = Part(name, _group(name, pair), fate or Kind.LEFT_OUT, mine.expr, other.expr)
    if mine.shape == other.shape:
        if fate is None:
            findings.note(name, "left out, and not compared")
        return part if fate is not None else None
    if kind in ("embed", "head") and mine.shape[1:] == other.shape[1:]:
        return _of_another_vocabulary(part, choice, findings)
    sizes = f"it is {_size(mine.shape)} in {pair.finetuned.label} and {_size(other.shape)} in {pair.base.label}"
    findings.problem(name, sizes)
    return None


def _fate(name: str, shape: tuple[int, ...], kind: Role, choice: Choice) -> Kind | None:
    """Returns what becomes of a tensor of one shape in both models; None for what is not worth reading."""
    if kind in ("embed", "head") and _is_matrix(name, shape):
        if not choice.embeddings:
            return None
        return Kind.EMBEDDING if kind == "embed" else Kind.LINEAR
    if kind == "layer" and _is_matrix(name, shape):
        return Kind.LINEAR
    if choice.save_norms and name.endswith((".weight", ".bias")) and not names_tower(name):
        return Kind.SAVED
    return Kind.LEFT_OUT if len(shape) == 1 else None


def _of_another_vocabulary(part: Part, choice: Choice, findings: Findings) -> Part | None:
    if choice.embeddings:
        return replace(part, kind=Kind.SAVED, base=None)
    findings.note(part.name, "left out; the two have different vocabularies")
    return None


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and name.endswith(".weight")


def _group(name: str, pair: _Pair) -> str:
    """Returns a module's name without layer numbers; within the layers, without what stands in front of them."""
    stored = part_in_layer(pair.other.name, pair.base.layers)
    inside = stored if stored != pair.other.name else name
    return _NUMBER.sub("*", f".{inside}".rpartition(".")[0])[1:] or inside


def _with_transposed(parts: list[Part], ours: Mapping[str, str], finetuned: PlannedModel) -> Iterator[Part]:
    """Yields the parts with the weights of layers marked that are stored as `(in, out)`.

    The length of a bias shows it. A square weight, or one without a bias, is taken to be stored as the others are.
    """
    biases = {
        name.removesuffix(".bias"): finetuned.tensors[stored].shape
        for name, stored in ours.items()
        if name.endswith(".bias")
    }
    in_layers = {part.name for part in parts if part.kind is Kind.LINEAR and part.group != part.module}
    signs = {part.name: bias_shows_transposed(part.finetuned.tensor.shape, biases.get(part.module)) for part in parts}
    is_usual = any(signs[name] is True for name in in_layers)
    for part in parts:
        sign = signs[part.name]
        is_transposed = part.name in in_layers and (is_usual if sign is None else sign)
        yield replace(part, kind=Kind.TRANSPOSED) if is_transposed else part


def _with_bias_kinds(parts: Iterator[Part]) -> Iterator[Part]:
    """Yields the parts with the biases told from modules that can be saved whole: those without a matrix."""
    known = list(parts)
    low_rank = {part.module for part in known if part.kind.is_low_rank}
    for part in known:
        is_bias = part.kind is Kind.SAVED and part.name.endswith(".bias") and part.module in low_rank
        yield replace(part, kind=Kind.BIAS) if is_bias else part


def _with_tied_heads(parts: Iterator[Part]) -> Iterator[Part]:
    for part in parts:
        yield replace(part, tied_head=USUAL_HEAD) if part.name.endswith(".weight") and part.is_embedding else part


def _ties(model: PlannedModel) -> bool:
    return model.ties_embeddings and not any(role(name, model.layers) == "head" for name in model.tensors)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
