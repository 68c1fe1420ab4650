"""The plan of a merge: everything that is decided before a byte of weights is read.

A plan is pure data. It knows every byte range to read and every byte's place in the output, so executing it is
streaming; printing it is the dry run; comparing two fingerprints tells whether two runs make the same thing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hubmerge.errors import PlanError
from hubmerge.merge.adapted import stored_models
from hubmerge.merge.assemble import MadeModule
from hubmerge.merge.devices import HOST
from hubmerge.merge.expr import Dithered, Expr, Gate, Load, Merge, Routing, Same, loads
from hubmerge.merge.findings import Findings, sentences
from hubmerge.merge.planned import PlannedTensor, PlannedTokenizer
from hubmerge.merge.planner import Planner
from hubmerge.merge.recipe import Recipe
from hubmerge.merge.token_rules import tokenizer_sources
from hubmerge.merge.vocabularies import TokenizerOf
from hubmerge.tokenizer import read_tokenizer
from hubmerge.weights.checkpoint import Checkpoint, ParentKey, parent_checkpoints
from hubmerge.weights.files import FileEntry
from hubmerge.weights.header import TensorInfo, build_header, item_size
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.shard_index import SINGLE_FILE

DEFAULT_SHARD_BYTES = 4_000_000_000
"""Two shards on disk at a time fit a small CI runner with room to spare; a 7B model in bf16 has four."""


@dataclass(frozen=True)
class OutputTensor:
    """A tensor of the result: the expression that makes it, and its place in its shard's file."""

    expr: Expr
    info: TensorInfo


@dataclass(frozen=True)
class ShardPlan:
    """One output file, complete but for its tensors' data.

    Attributes:
        header: The file's first bytes, up to the data.
        tensors: In the order of their data.
    """

    filename: str
    header: bytes
    tensors: tuple[OutputTensor, ...]

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""
        return self.tensors[-1].info.stop if self.tensors else len(self.header)


@dataclass(frozen=True)
class Parent:
    """A checkpoint or an adapter that the merge reads.

    Attributes:
        ref: A model's is without its adapter, which is another parent.
        label: `org/name@0123abc`, or the folder.
        sha: The commit; None for a folder.
        read_bytes: What the plan reads of its weights.
        stored_bytes: Size of all of its weights.
        files: (path, size in bytes, version) of its weight files: on the Hub the version is a hash, on this disk the
            time of the last change in nanoseconds.
    """

    ref: ModelRef
    label: str
    sha: str | None
    read_bytes: int
    stored_bytes: int
    files: tuple[tuple[str, int, str | int | None], ...]
    is_adapter: bool = False


@dataclass(frozen=True)
class Plan:
    """A merge, ready to be executed.

    Attributes:
        parents: `Load.parent` counts into this.
        donor: Number of the parent that gives config.json and what stands beside it.
        tokenizer: What the result's texts are split by.
        config: config.json of the result.
        modules: What becomes of each part of the model; most models have one.
        notes: What the reader should know before starting, one sentence each.
        device: What computes it, `cpu` or `cuda`; their roundings differ.
    """

    recipe: Recipe
    parents: tuple[Parent, ...]
    donor: int
    tokenizer: PlannedTokenizer
    config: Mapping[str, Any]
    shards: tuple[ShardPlan, ...]
    modules: tuple[MadeModule, ...]
    notes: tuple[str, ...]
    device: str = HOST

    @property
    def tensors(self) -> Iterable[OutputTensor]:
        """Every output tensor, in the order in which it is made."""
        return (tensor for shard in self.shards for tensor in shard.tensors)

    @property
    def routing(self) -> Routing | None:
        """What the routers are found from before anything is streamed; None where no prompts decide them."""
        return _routing(self.shards)

    @property
    def layer_count(self) -> int:
        """Layers of the result's language model; 0 if tensor names show none."""
        return next((len(made.layers) for made in self.modules if made.module.is_main), 0)

    @property
    def read_bytes(self) -> int:
        """Bytes of weights to read; of embeddings that prompts need alone, nothing is counted."""
        return sum(parent.read_bytes for parent in self.parents)

    @property
    def write_bytes(self) -> int:
        """Size of the shards."""
        return sum(shard.size_bytes for shard in self.shards)

    @property
    def disk_bytes(self) -> int:
        """Most disk that a merge to the Hub needs: the two largest shards that follow each other."""
        sizes = [shard.size_bytes for shard in self.shards]
        return max(map(sum, zip(sizes, [*sizes[1:], 0], strict=True)), default=0)

    @property
    def parameter_count(self) -> int:
        """Number of elements of all tensors."""
        return sum(tensor.info.elements for tensor in self.tensors)


def build_plan(
    recipe: Recipe,
    checkpoints: Mapping[ModelRef, Checkpoint],
    adapters: Mapping[ModelRef, Checkpoint] | None = None,
    *,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> Plan:
    """Returns the plan of a recipe over its opened checkpoints: of `model_refs`, and of `lora_refs`.

    Raises:
        RecipeError: The slices do not fit the models' layers.
        PlanError: Tensors do not fit together; the error lists every way in which they do not.
    """
    findings = Findings()
    parents = plan_parents(checkpoints, adapters or {})
    stored = stored_models(checkpoints, findings)
    planner = Planner(stored, _tokenizer_reader(parents.values()), findings, _numbered_adapters(parents))
    model, modules = planner.plan(recipe)
    if findings.problems:
        raise PlanError(sentences(findings.problems), hint=findings.hint)
    if not model.tensors:
        raise PlanError(["the models hold no tensors"])
    tensors = [_finally_rounded(tensor, recipe) for tensor in model.tensors.values()]
    shards = lay_out(tensors, shard_bytes=shard_bytes)
    return Plan(
        recipe=recipe,
        parents=_parents(parents, shards),
        donor=model.donor,
        tokenizer=model.tokenizer,
        config=model.config,
        shards=shards,
        modules=modules,
        notes=(
            *recipe.warnings,
            *(note for parent in parents.values() for note in parent.notes),
            *sentences(findings.notes),
        ),
    )


def model_refs(recipe: Recipe) -> tuple[ModelRef, ...]:
    """Returns every checkpoint that a recipe names, at any depth, in order and without repetition."""
    return tuple(dict.fromkeys(_model_refs(recipe, set())))


def lora_refs(recipe: Recipe) -> tuple[ModelRef, ...]:
    """Returns every adapter that is added to the result of a recipe or of one within it, without repetition."""
    return tuple(dict.fromkeys(inner.lora for inner in recipe.tree() if inner.lora is not None))


def plan_parents(
    checkpoints: Mapping[ModelRef, Checkpoint], adapters: Mapping[ModelRef, Checkpoint]
) -> dict[ParentKey, Checkpoint]:
    """Returns what a plan over these reads from, in the order in which `Load.parent` counts."""
    parents = parent_checkpoints(checkpoints.values())
    for ref, adapter in adapters.items():
        parents.setdefault((ref, True), adapter)
    return parents


def lay_out(tensors: Sequence[PlannedTensor], *, shard_bytes: int) -> tuple[ShardPlan, ...]:
    """Returns the output files: tensors in order, a new file where the next would exceed `shard_bytes`.

    A tensor larger than `shard_bytes` gets a file of its own.
    """
    groups: list[list[PlannedTensor]] = []
    room = 0
    for tensor in tensors:
        size = tensor.elements * item_size(tensor.dtype)
        if not groups or size > room:
            groups.append([])
            room = shard_bytes
        groups[-1].append(tensor)
        room -= size
    if len(groups) == 1:
        return (_shard(SINGLE_FILE, groups[0]),)
    count = len(groups)
    return tuple(
        _shard(f"model-{number:05d}-of-{count:05d}.safetensors", group) for number, group in enumerate(groups, start=1)
    )


def _numbered_adapters(parents: Mapping[ParentKey, Checkpoint]) -> dict[ModelRef, tuple[int, Checkpoint]]:
    keys = enumerate(parents.items())
    return {ref: (number, checkpoint) for number, ((ref, is_adapter), checkpoint) in keys if is_adapter}


def _finally_rounded(tensor: PlannedTensor, recipe: Recipe) -> PlannedTensor:
    """Returns a tensor of the result, rounded as the recipe says; what is only copied stays as it is."""
    if recipe.rounding == "nearest" or isinstance(tensor.expr, Load | Same | Gate):
        return tensor
    value = replace(tensor.expr, dtype=None) if isinstance(tensor.expr, Merge) else tensor.expr
    return replace(tensor, expr=Dithered(value, tensor.name, recipe.seed))


def _model_refs(recipe: Recipe, met: set[int]) -> Iterable[ModelRef]:
    """Yields what a recipe reads; recipes within it that were `met` before, by `id()`, are passed over."""
    met.add(id(recipe))
    named = () if recipe.tokenizer is None else tokenizer_sources(recipe.tokenizer)
    for source in (*recipe.sources, *named):
        if isinstance(source, ModelRef):
            yield source
        elif id(source) not in met:
            yield from _model_refs(source, met)


def _tokenizer_reader(checkpoints: Iterable[Checkpoint]) -> TokenizerOf:
    """Returns what gives a model's tokenizer; a parent's is read when it is first asked for, and once."""
    files = [checkpoint.files for checkpoint in checkpoints]
    stored = functools.cache(lambda parent: read_tokenizer(files[parent]))
    return lambda model: model.tokenizer.built or stored(model.tokenizer.parents[0])


def _parents(checkpoints: Mapping[ParentKey, Checkpoint], shards: Sequence[ShardPlan]) -> tuple[Parent, ...]:
    read = [0] * len(checkpoints)
    for load in _all_loads(shards):
        read[load.parent] += load.tensor.size_bytes
    return tuple(
        _parent(checkpoint, size, is_adapter=is_adapter)
        for ((_, is_adapter), checkpoint), size in zip(checkpoints.items(), read, strict=True)
    )


def _all_loads(shards: Sequence[ShardPlan]) -> Iterable[Load]:
    """Yields what is read: for each output tensor, and before that of each layer that prompts run through."""
    for shard in shards:
        for tensor in shard.tensors:
            yield from loads(tensor.expr)
    routing = _routing(shards)
    for layer in () if routing is None else routing.layers:
        for expr in layer.values():
            yield from loads(expr)


def _routing(shards: Sequence[ShardPlan]) -> Routing | None:
    exprs = (tensor.expr for shard in shards for tensor in shard.tensors)
    return next((expr.routing for expr in exprs if isinstance(expr, Gate)), None)


def _parent(checkpoint: Checkpoint, read_bytes: int, *, is_adapter: bool) -> Parent:
    entries = checkpoint.files.entries()
    weights = dict.fromkeys(source.file for source in checkpoint.tensors.values())
    return Parent(
        ref=checkpoint.ref,
        label=checkpoint.files.label,
        sha=checkpoint.sha,
        read_bytes=read_bytes,
        stored_bytes=sum(source.info.size_bytes for source in checkpoint.tensors.values()),
        files=tuple((path, entry.size_bytes, _version(entry)) for path in weights if (entry := entries[path])),
        is_adapter=is_adapter,
    )


def _version(entry: FileEntry) -> str | int | None:
    return entry.sha256 or entry.blob_id or entry.modified_ns


def _shard(filename: str, tensors: Sequence[PlannedTensor]) -> ShardPlan:
    header, infos = build_header([(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors])
    outputs = tuple(OutputTensor(tensor.expr, info) for tensor, info in zip(tensors, infos, strict=True))
    return ShardPlan(filename, header, outputs)
