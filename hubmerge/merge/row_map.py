"""Which rows of which tensors make the rows of another: the index of a re-indexed embedding, a few bytes a row."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubmerge.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


Pick = tuple[int, int]
"""(number of the input, row in it)."""


@dataclass(frozen=True)
class RowMap:
    """For every output row its picks; the row is their mean, and zeros if there are none.

    The attributes are packed 64-bit integers: a vocabulary has hundreds of thousands of rows, and a plan several maps.

    Attributes:
        starts: Where the picks of each row begin in `inputs` and `rows`, and at last where those of the last row end.
        inputs: The input of each pick.
        rows: The row of each pick.
        filled: Output rows that belong to no token, in order; each is the mean of all rows that are not of them.
    """

    starts: bytes
    inputs: bytes
    rows: bytes
    filled: bytes

    @property
    def length(self) -> int:
        """Number of output rows."""
        return len(self.starts) // 8 - 1

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        parts = (self.starts, self.inputs, self.rows, self.filled)
        return hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).hexdigest()

    def filled_rows(self) -> list[int]:
        """Returns the rows that get the mean of the others."""
        return array("q", self.filled).tolist()

    def picks(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the picks of the output rows [start, stop): their inputs, their rows, and how many each row has."""
        starts = _unpacked(self.starts, start, stop + 1)
        first, last = int(starts[0]), int(starts[-1])
        return _unpacked(self.inputs, first, last), _unpacked(self.rows, first, last), starts.diff()


def row_map(rows: Sequence[Sequence[Pick] | None]) -> RowMap:
    """Returns the map of output rows, each given by its picks, or by None if it gets the mean of the others."""
    starts, inputs, picked = array("q", [0]), array("q"), array("q")
    for picks in rows:
        for number, row in picks or ():
            inputs.append(number)
            picked.append(row)
        starts.append(len(inputs))
    filled = array("q", (number for number, picks in enumerate(rows) if picks is None))
    return RowMap(starts.tobytes(), inputs.tobytes(), picked.tobytes(), filled.tobytes())


def _unpacked(packed: bytes, start: int, stop: int) -> Tensor:
    return torch.tensor(array("q", packed[8 * start : 8 * stop]), dtype=torch.int64)
