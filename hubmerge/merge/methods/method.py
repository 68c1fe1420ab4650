"""What a merge method is: its record, its parameters, and the blocks of a tensor that it works on.

A tensor of any size is merged in blocks of whole rows that fit in a core's cache. A method is at most two functions:

    prepare(operands, settings) -> state      passes over all blocks for what needs the whole tensor: norms, thresholds
    combine(tensors, settings, state, block)  one block of every input -> that block of the result

Methods that are used most have compiled kernels besides, which take a run of several blocks at a time: for them a block
is such a run. Blocks come in one fixed order that depends only on the shape and on whether there is a kernel, and
`prepare` adds up in fp64 in that order, so neither threads nor schedules can change a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hubmerge.merge.native.kernels import Kernel, Stored

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_ELEMENTS = 131_072
"""Elements of a block. Three in fp32 stay in a 2 MiB L2 cache; kernels on 1 Mi elements measured 1.5-2 times slower."""

RUN_BLOCKS = 2
"""Blocks that compiled kernels combine at a time. They work on a few hundred elements at once, however long the run;
longer runs save calls, until a run's result no longer stays in the cache until it is hashed and written."""
PASS_BLOCKS = 4
"""The same where nothing is written: in the passes of `prepare`."""

Value = float | int | bool

Floats = NDArray[np.floating[Any]]


class Scope(Enum):
    """Whose value a parameter is."""

    SHARED = "one value for the merge"
    MODEL = "one value for each model"
    TUNED = "one value for each model but the base"


class Base(Enum):
    """What a recipe's `base_model` is to a method."""

    REQUIRED = "required; the first operand"
    OPTIONAL = "the first operand if given"
    DONOR = "gives config and tokenizer only, never averaged in"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        default: None if a recipe must state it.
        kind: The Python type of a value: float, int or bool.
        summary: What it does, one sentence without a full stop; shown by `hubmerge plan` and in the recipe reference.
    """

    name: str
    scope: Scope
    default: Value | None
    summary: str
    kind: type = float


@dataclass(frozen=True)
class Block:
    """Whole rows of a tensor, as the row-major elements [start, stop)."""

    start: int
    stop: int
    row_length: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.stop - self.start


def blocks_of(shape: Sequence[int], *, at_a_time: int = 1) -> tuple[Block, ...]:
    """Returns the blocks of a tensor in order, or runs of so many; rows lie along the last dimension.

    A vector is one row.
    """
    row_length = shape[-1] if shape else 1
    numel = row_length
    for size in shape[:-1]:
        numel *= size
    if numel == 0:
        return ()
    step = max(1, BLOCK_ELEMENTS // row_length) * row_length * at_a_time
    return tuple(Block(start, min(start + step, numel), row_length) for start in range(0, numel, step))


@dataclass(frozen=True)
class Settings:
    """The values of a method's parameters for one tensor.

    Attributes:
        shared: Values of the SHARED parameters.
        inputs: One mapping an input, in recipe order, without the base where the method has one as its first operand.
    """

    shared: Mapping[str, Value]
    inputs: tuple[Mapping[str, Value], ...]

    def column(self, name: str) -> list[float]:
        """Returns one parameter's values over the inputs."""
        return [float(values[name]) for values in self.inputs]


class Operands(Protocol):
    """The tensors of one merge, read block by block; the base comes first if the merge has one."""

    @property
    def name(self) -> str:
        """The output tensor's name, for messages and for the keys of random masks."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that all operands share."""

    @property
    def seed(self) -> int:
        """The recipe's seed."""

    @property
    def has_base(self) -> bool:
        """Whether the first operand is the base."""

    @property
    def blocks(self) -> Sequence[Block]:
        """The whole tensor in order: its blocks, or runs of them where there are compiled kernels."""

    def load(self, block: Block) -> list[Tensor]:
        """Returns one flat tensor an operand, fp32 or, if any operand is, fp64; the caller may overwrite them.

        Args:
            block: Any whole rows; they need not be one of `blocks`.
        """

    def stored(self, block: Block) -> list[Stored] | None:
        """Returns the same as it is stored, not to be written to; None where there are no compiled kernels for it.

        It is good until the next call.
        """


Prepare = Callable[[Operands, Settings], Any]
Combine = Callable[["list[Tensor]", Settings, Any, Block], "Tensor"]
Compile = Callable[[Settings, Any], Kernel | None]
Check = Callable[[Settings], str | None]


@dataclass(frozen=True)
class Method:
    """A merge method as the recipe language knows it.

    Attributes:
        name: `merge_method` in a recipe.
        title: Its name in prose, for the card.
        paper: Link to the paper or the source that defines it, or None for folklore.
        summary: One sentence: what it does.
        base: What `base_model` means to it.
        least: Fewest inputs, the base included if it is an operand.
        most: Most inputs, likewise; None for no limit.
        prepare: See the module; None if a block needs nothing from the rest of the tensor. The state that it returns
            may hold anything; combine only reads it.
        combine: See the module. It may overwrite its tensors and return one of them.
        compiled: Returns what does the same as `combine` with these settings and this state, to the bit, on tensors as
            they are stored; or None.
        check: Returns what is wrong with a tensor's settings, or None; asked while planning.
        thinned: Returns what the state keeps of each task vector of a block, zeros elsewhere; None for methods that
            keep everything.
        is_copy: Whether settings make the result the only input unchanged, so that its bytes can be copied.
    """

    name: str
    title: str
    paper: str | None
    summary: str
    parameters: tuple[Parameter, ...]
    base: Base
    least: int
    most: int | None
    combine: Combine
    prepare: Prepare | None = None
    compiled: Compile | None = None
    check: Check | None = None
    thinned: Callable[[Operands, Any, Block], list[Floats]] | None = None
    is_copy: Callable[[Settings], bool] | None = None

    def parameter(self, name: str) -> Parameter | None:
        """Returns the parameter of that name, or None."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)
