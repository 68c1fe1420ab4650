"""Routers found from prompts, before anything is streamed.

A prompt becomes a vector: in `cheap_embed` the sum of its tokens' embeddings, else what goes into a layer when the
model reads it. An expert's row of the router is the normalised difference of the vectors of its positive and its
negative prompts, so that a token is sent where the prompts resemble it. Of the embedding only the prompts' rows are
read; layers are read, run and forgotten one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hubmerge.errors import SourceError
from hubmerge.lazy_torch import torch
from hubmerge.merge.evaluate import evaluate
from hubmerge.merge.expr import Expr, Gate, Load, Routing
from hubmerge.merge.moe.forward import layer_inputs
from hubmerge.merge.moe.prompts import TokenizedPrompts, tokenize
from hubmerge.merge.plan import Plan, ShardPlan
from hubmerge.merge.progress import Progress, Stage
from hubmerge.merge.read_ahead import ReadAhead
from hubmerge.merge.side_files import side_files
from hubmerge.merge.stream import StreamOptions
from hubmerge.weights.checkpoint import Checkpoint
from hubmerge.weights.files import Files
from hubmerge.weights.header import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_NORM = 1e-8
"""Below it a difference is rounding noise, and is not blown up to length 1."""

DEGENERATE_CONDITION = 5.0
"""Ratio of a router's largest to its smallest singular value from which some experts hardly differ."""


def find_gates(
    plan: Plan,
    shards: Sequence[ShardPlan],
    checkpoints: Sequence[Checkpoint],
    *,
    options: StreamOptions,
    progress: Progress,
) -> Mapping[Gate, Tensor]:
    """Returns every router of these shards in fp32, `(experts, hidden)` each.

    Raises:
        SourceError: The tokenizer cannot be used.
        TransferError: A source did not arrive.
    """
    gates = [tensor.expr for shard in shards for tensor in shard.tensors if isinstance(tensor.expr, Gate)]
    if not gates:
        return {}
    routing = gates[0].routing
    progress.say(f"Finding the routers of {1 + max(gate.layer for gate in gates)} layers from prompts ({routing.mode})")
    files = [checkpoint.files for checkpoint in checkpoints]
    with torch.inference_mode():
        small_files = side_files(plan.tokenizer, plan.donor, checkpoints)
        prompts = tokenize(routing.prompts, {**small_files, "config.json": json.dumps(dict(routing.config)).encode()})
        vectors = _prompt_vectors(routing, prompts, _Sources(files, options, progress))
        directions = _directions(vectors, prompts, each_side=routing.mode == "cheap_embed")
    _warn_of_degenerate(directions, progress)
    return {gate: directions[min(gate.layer, len(directions) - 1), gate.first : gate.stop] for gate in gates}


@dataclass(frozen=True)
class _Sources:
    """Where expressions' values come from before the merge is streamed."""

    files: Sequence[Files]
    options: StreamOptions
    progress: Progress

    def values(self, exprs: Sequence[Expr], *, is_counted: bool = True) -> Iterator[Tensor]:
        """Yields the values of each in fp32, flat; remote bytes are on their way before they are asked for.

        Args:
            exprs: In order.
            is_counted: Whether the plan counts what is read for them.
        """
        ahead = ReadAhead(
            self.files,
            exprs,
            budget_bytes=self.options.read_ahead_bytes,
            connections=self.options.connections,
            on_read=partial(self.progress.advance, Stage.READ) if is_counted else _uncounted,
        )
        with ahead:
            for number, expr in enumerate(exprs):
                try:
                    blocks = [data.copy() for _, data in evaluate(expr, dtype="F32", source=ahead.source(number))]
                except BaseException:
                    ahead.abort()
                    raise
                ahead.release(number, expr)
                yield torch.from_numpy(np.concatenate(blocks)).view(torch.float32)


def _uncounted(_size_bytes: int) -> None:
    """Takes no notice: which rows of an embedding prompts need is not known when a plan is made."""


def _prompt_vectors(routing: Routing, prompts: TokenizedPrompts, sources: _Sources) -> Tensor:
    """Returns `(layers, prompts, hidden)`; a mode that is the same for all layers gives one."""
    ids, places = torch.unique(prompts.ids, return_inverse=True)
    rows = _embedding_rows(routing, ids.tolist(), sources)
    embedded = rows[places]  # (prompts, tokens, hidden)
    mask = prompts.mask.unsqueeze(-1)
    if routing.mode == "cheap_embed":
        return (embedded * mask).sum(1).unsqueeze(0)

    def vector(values: Tensor) -> Tensor:
        if routing.mode == "hidden_last":  # prompts are filled up on their left
            return values[:, -1].clone()
        return (values * mask).sum(1) / mask.sum(1)

    return torch.stack(layer_inputs(routing, embedded, prompts.mask, _layers(routing, sources), summary=vector))


def _embedding_rows(routing: Routing, ids: Sequence[int], sources: _Sources) -> Tensor:
    """Returns the embeddings of ascending ids; of a stored table nothing else is read."""
    expr = routing.embedding
    if isinstance(expr, Load):
        loads = [replace(expr, tensor=_row(expr.tensor, row)) for row in ids]
        return torch.stack(list(sources.values(loads, is_counted=False)))
    (table,) = sources.values([expr], is_counted=False)
    return table.view(-1, routing.config["hidden_size"])[ids]


def _row(table: TensorInfo, row: int) -> TensorInfo:
    count, *length = table.shape
    if not 0 <= row < count:
        raise SourceError(f"the base's tokenizer knows a token {row}, and its embedding {table.name} has {count} rows")
    size = table.size_bytes // count
    start = table.start + row * size
    return TensorInfo(table.name, table.dtype, (1, *length), start, start + size)


def _layers(routing: Routing, sources: _Sources) -> Iterator[dict[str, Tensor]]:
    """Yields the weights of one layer after the other, flat."""
    values = sources.values([expr for layer in routing.layers for expr in layer.values()])
    for layer in routing.layers:
        yield {part: next(values) for part in layer}


def _directions(vectors: Tensor, prompts: TokenizedPrompts, *, each_side: bool) -> Tensor:
    """Returns `(layers, experts, hidden)`, each row of length 1.

    Args:
        vectors: `(layers, prompts, hidden)`.
        prompts: Say which of them belong to which expert.
        each_side: Whether the means of an expert's positive and negative prompts are brought to length 1 already
            before they are subtracted.
    """

    def side(numbers: list[int]) -> Tensor:
        mean = vectors[:, numbers].mean(1)
        return _normalised(mean) if each_side else mean

    experts = [
        side(positive) - side(negative) if negative else side(positive) for positive, negative in prompts.experts
    ]
    return _normalised(torch.stack(experts, dim=1))


def _normalised(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / lengths.clamp(min=SMALLEST_NORM)


def _warn_of_degenerate(directions: Tensor, progress: Progress) -> None:
    conditions = torch.linalg.cond(directions)  # not a number where a row is zero
    count = int((~(conditions <= DEGENERATE_CONDITION)).sum())
    if count and directions.shape[1] > 1:
        layers = f"{count} of {len(directions)} layers" if len(directions) > 1 else "all layers"
        progress.say(f"In {layers} the prompts of some experts mean nearly the same to the model: choose others")
