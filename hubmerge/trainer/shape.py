"""What a budget needs to know of a model: sizes, from the names and shapes of its tensors and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hubmerge.errors import BudgetError
from hubmerge.merge.layers import layer_index, main_stack, role
from hubmerge.weights.checkpoint import Checkpoint

Shapes = Mapping[str, tuple[int, ...]]

_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a language model.

    Attributes:
        linears: Name of a linear layer's module -> (outputs, inputs), of all layers of the stack.
        other_parameters: Embeddings, head, norms and biases: what is never quantised.
        inner: Widest intermediate state of a layer; the MLP's.
        vocabulary: Rows of the embedding.
        context: Longest sequence that config.json allows; None where it does not say.
    """

    linears: Mapping[str, tuple[int, int]]
    other_parameters: int
    layers: int
    hidden: int
    inner: int
    vocabulary: int
    context: int | None

    @property
    def linear_parameters(self) -> int:
        """Weights of all linear layers."""
        return sum(outputs * inputs for outputs, inputs in self.linears.values())

    @property
    def longest(self) -> float:
        """Tokens of the longest sequence; infinite where config.json does not say."""
        return math.inf if self.context is None else self.context

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.linear_parameters + self.other_parameters

    @property
    def largest_linear(self) -> int:
        """Weights of the largest linear layer."""
        return max(outputs * inputs for outputs, inputs in self.linears.values())

    def adapter_parameters(self, r: int, targets: Iterable[str]) -> int:
        """Returns the weights of a LoRA adapter of rank r on the linear layers whose names end so.

        Raises:
            BudgetError: No layer has such a name.
        """
        ends = tuple(targets)
        sizes = [size for name, size in self.linears.items() if ends == ("all-linear",) or name.endswith(ends)]
        if not sizes:
            known = sorted({name.rpartition(".")[2] for name in self.linears})
            raise BudgetError(f"no linear layer is called {' or '.join(ends)}", hint=f"There are {', '.join(known)}.")
        return sum(r * (outputs + inputs) for outputs, inputs in sizes)


def shape_of(checkpoint: Checkpoint) -> ModelShape:
    """Returns the sizes of a checkpoint; see `shape_from`."""
    return shape_from({name: tensor.info.shape for name, tensor in checkpoint.tensors.items()}, checkpoint.config)


def shape_from(shapes: Shapes, config: Mapping[str, Any]) -> ModelShape:
    """Returns the sizes of a model.

    Args:
        shapes: Of every tensor, by name.
        config: Its config.json.

    Raises:
        BudgetError: It is not a stack of layers with matrices, or a mixture of experts, whose layers peft does not
            adapt.
    """
    stack = main_stack(shapes, config)
    embedding = next((shape for name, shape in shapes.items() if role(name, stack) == "embed"), None)
    matrices = {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes.items()
        if layer_index(name, stack) is not None and len(shape) == 2 and name.endswith(".weight")
    }
    if stack is None or embedding is None or not matrices:
        raise BudgetError("the model has no stack of layers with embeddings, so its memory cannot be predicted")
    if any(".experts." in name for name in shapes):
        raise BudgetError("the model is a mixture of experts, which preference tuning does not support yet")
    vocabulary, hidden = embedding
    return ModelShape(
        linears=matrices,
        other_parameters=sum(map(math.prod, shapes.values())) - sum(map(math.prod, matrices.values())),
        layers=stack.count,
        hidden=hidden,
        vocabulary=vocabulary,
        inner=max(max(size) for size in matrices.values()),
        context=next((config[key] for key in _CONTEXT_KEYS if isinstance(config.get(key), int)), None),
    )
