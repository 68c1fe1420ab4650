"""The expression that makes one output tensor from source tensors; `evaluate` computes it.

Expr
├── Load        a tensor of a parent, as it is stored
├── AddLora     a tensor and the low-rank delta that an adapter adds to it
├── Same        a tensor that every parent must hold identically: integers, masks, position ids
├── RemapRows   rows of expressions in another order: embeddings brought to one vocabulary
├── Random      random numbers: a router that nobody has taught yet, noise that tells experts apart
├── Gate        a router's matrix from prompts, found before anything is streamed; never part of another expression
├── Merge       a method applied to expressions, which may be merges themselves
└── Dithered    an output tensor whose last rounding is random, outermost only
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hubmerge.merge.methods.method import Settings
from hubmerge.merge.row_map import RowMap
from hubmerge.weights.header import TensorInfo


@dataclass(frozen=True)
class Load:
    """A tensor of parent number `parent` (its place in `Plan.parents`), stored in `file` at `tensor`'s bytes."""

    parent: int
    file: str
    tensor: TensorInfo

    @property
    def inputs(self) -> tuple[Expr, ...]:
        """None: it is what all else is made from."""
        return ()


@dataclass(frozen=True)
class AddLora:
    """W + scale · B·A, or its transpose (https://arxiv.org/abs/2106.09685).

    The dimensions of a convolution's W after the first count as one.

    Attributes:
        weight: W.
        a: `(rank, in)`.
        b: `(out, rank)`.
        is_transposed: Whether W is `(in, out)`; embeddings are.
        is_double: Whether it is computed in fp64 even where nothing that it is made from is fp64.
    """

    weight: Expr
    a: Load
    b: Load
    scale: float
    is_transposed: bool
    is_double: bool = False

    @property
    def inputs(self) -> tuple[Expr, ...]:
        """What it is made from."""
        return self.weight, self.a, self.b


@dataclass(frozen=True)
class Same:
    """A tensor without arithmetic; the parents' bytes must be equal."""

    inputs: tuple[Load, ...]


@dataclass(frozen=True)
class Merge:
    """A method applied to inputs of one shape.

    Attributes:
        name: The tensor's name in the recipe that this merge belongs to; keys its random masks.
        inputs: The operands, the base first if `has_base`.
        seed: Seed of the recipe that this merge belongs to.
        dtype: safetensors code that the result is rounded to before anything else uses it; None to hand it on
            unrounded.
        is_double: Whether it is computed in fp64 even where nothing that it is made from is fp64.
    """

    method: str
    name: str
    inputs: tuple[Expr, ...]
    has_base: bool
    settings: Settings
    seed: int
    dtype: str | None = None
    is_double: bool = False


@dataclass(frozen=True)
class RemapRows:
    """Rows of inputs of one row length, in another order, number and mixture.

    Attributes:
        inputs: Matrices, or vectors and `(1, n)` matrices, whose elements are the rows.
        index: Its picks count into `inputs`.
        shape: Of the result.
    """

    inputs: tuple[Expr, ...]
    index: RowMap
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Random:
    """Random numbers that depend on nothing but these attributes and the element's place.

    Attributes:
        name: What tells it from other random tensors of the same seed.
        kind: `normal` with mean 0, or `uniform` around 0.
        scale: Standard deviation of the one, half the width of the other.
    """

    name: str
    shape: tuple[int, ...]
    seed: int
    kind: Literal["normal", "uniform"]
    scale: float = 1.0
    inputs: tuple[Expr, ...] = ()


@dataclass(frozen=True, eq=False)
class Routing:
    """What the routers of a model are found from: prompts, and the model that they are put to.

    Attributes:
        mode: `cheap_embed` compares embeddings, `hidden_last` and `hidden_avg` what goes into each layer, at the last
            token or over all of them.
        prompts: For each expert the texts that it is for and those that it is not for.
        embedding: `(vocab, hidden)`.
        layers: Of each layer that the prompts run through the weights by their names in it; none for `cheap_embed`.
        layer_elements: Weights of the largest of these layers.
        config: config.json of the model.
    """

    mode: str
    prompts: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    embedding: Expr
    layers: tuple[Mapping[str, Expr], ...]
    layer_elements: int
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Gate:
    """The router of one layer for the experts [first, stop) of its prompts: `(stop - first, hidden)`."""

    routing: Routing
    layer: int
    first: int
    stop: int
    inputs: tuple[Expr, ...] = ()


@dataclass(frozen=True)
class Dithered:
    """A value that is rounded up or down at random, so that what is lost is zero on average.

    Attributes:
        name: The output tensor's name; keys the random numbers together with `seed`.
    """

    value: Expr
    name: str
    seed: int

    @property
    def inputs(self) -> tuple[Expr, ...]:
        """What it is made from."""
        return (self.value,)


Expr = Load | AddLora | Same | RemapRows | Random | Gate | Merge | Dithered


def walk(expr: Expr) -> Iterator[Expr]:
    """Yields an expression and all its parts, depth first; a part that others share comes once."""
    seen: set[int] = set()
    waiting = [expr]
    while waiting:
        part = waiting.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting.extend(reversed(part.inputs))


def loads(expr: Expr) -> tuple[Load, ...]:
    """Returns the source tensors of an expression, depth first and without repetition."""
    return tuple(dict.fromkeys(part for part in walk(expr) if isinstance(part, Load)))
