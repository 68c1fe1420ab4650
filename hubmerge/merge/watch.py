"""The seam for whoever looks at tensors while they are made: one watch a tensor, used by the thread that makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hubmerge.merge.methods.method import Block

Bytes = NDArray[np.uint8]
Values = NDArray[np.floating[Any]]


class Inputs(Protocol):
    """What a tensor is made from, to be asked for now and then."""

    def operands(self, block: Block) -> list[Values]:
        """Returns one flat array an operand of the outermost merge, fp32 or fp64; any whole rows may be asked for.

        Of a tensor that is not made by a merge it is its value before it is rounded.
        """

    def kept(self, block: Block) -> Sequence[Values] | None:
        """Returns what the method keeps of each task vector, zeros elsewhere; None where it keeps everything."""


class Watch(Protocol):
    """Looks at one output tensor while it is made."""

    def computed(self, block: Block, result: Bytes, inputs: Inputs) -> None:
        """A block was computed; blocks come in order. The result's bytes are good until the inputs are asked."""

    def copied(self, data: Bytes) -> None:
        """Bytes of a parent's tensor went into the result as they are."""

    def finish(self) -> None:
        """The tensor is complete.

        Raises:
            MergeError: It must not be published.
        """


class Unwatched:
    """Nobody looks."""

    def computed(self, block: Block, result: Bytes, inputs: Inputs) -> None:
        """Does nothing."""

    def copied(self, data: Bytes) -> None:
        """Does nothing."""

    def finish(self) -> None:
        """Does nothing."""
