"""Cards made of the host's memory, and expressions over tensors in memory to be computed on them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hubmerge.merge.devices import Card
from hubmerge.merge.evaluate import evaluate
from hubmerge.merge.expr import Expr, Load, Merge
from hubmerge.merge.methods.method import BLOCK_ELEMENTS
from hubmerge.merge.nodes import Bytes
from hubmerge.merge.on_card import evaluate_on_card
from hubmerge.weights.dtypes import FLOAT_CODES, FLOAT_NAMES
from hubmerge.weights.header import TensorInfo
from tests.merge.methods.cases import Case

CPU = torch.device("cpu")
NAME = "model.layers.0.mlp.up_proj.weight"


@dataclass
class HostCard:
    """A card that is the host: whatever it gives for blocks of the host's size has the host's bits.

    Attributes:
        room_bytes: Most that may stay.
        sent_bytes: What was copied to it.
        used_by: Threads that computed on it.
    """

    block_elements: int = BLOCK_ELEMENTS
    room_bytes: int = 1 << 40
    device: torch.device = CPU
    sent_bytes: int = 0
    used_by: list[int] = field(default_factory=list)

    def send(self, data: Bytes) -> Tensor:
        self.sent_bytes += data.size
        return torch.from_numpy(np.array(data))

    def has_room(self, size_bytes: int) -> bool:
        return size_bytes <= self.room_bytes

    def seat(self) -> Callable[[], AbstractContextManager[object]]:
        return self._taken

    @contextmanager
    def _taken(self) -> Iterator[None]:
        self.used_by.append(threading.get_ident())
        yield


@dataclass(frozen=True)
class Memory:
    """Source tensors by name, and how often each was read."""

    tensors: dict[str, Tensor]
    reads: Counter[str] = field(default_factory=Counter)

    def open(self, load: Load) -> MemoryBytes:
        name = load.tensor.name
        return MemoryBytes(self.tensors[name].contiguous().view(torch.uint8).numpy().reshape(-1), name, self.reads)


@dataclass(frozen=True)
class MemoryBytes:
    """The data of one of them."""

    data: Bytes
    name: str
    reads: Counter[str]

    def read(self, start: int, stop: int) -> Bytes:
        self.reads[self.name] += 1
        return self.data[start:stop]


def loads_of(tensors: Sequence[Tensor], prefix: str = "x") -> tuple[tuple[Load, ...], Memory]:
    """Returns the loads of tensors, and where they come from."""
    memory = Memory({f"{prefix}{number}": tensor for number, tensor in enumerate(tensors)})
    return tuple(load_of(name, tensor) for name, tensor in memory.tensors.items()), memory


def load_of(name: str, tensor: Tensor) -> Load:
    code = FLOAT_CODES[str(tensor.dtype).removeprefix("torch.")]
    return Load(0, "", TensorInfo(name, code, tuple(tensor.shape), 0, tensor.nbytes))


def merge_of(case: Case, inputs: Sequence[Expr], *, dtype: str | None = None, seed: int = 3) -> Merge:
    return Merge(case.method, NAME, tuple(inputs), case.has_base, case.settings(), seed, dtype)


def on_host(expr: Expr, source: Memory, dtype: str) -> Tensor:
    """Returns what the host makes of an expression."""
    return _tensor([data.copy() for _, data in evaluate(expr, dtype=dtype, source=source)], dtype)


def on_card(expr: Expr, source: Memory, dtype: str, card: Card) -> Tensor:
    """Returns what a card makes of it."""
    blocks = evaluate_on_card(expr, dtype=dtype, source=source, card=card)
    return _tensor([data.copy() for _, data in blocks], dtype)


def _tensor(parts: Sequence[Bytes], dtype: str) -> Tensor:
    data = np.concatenate(parts) if parts else np.empty(0, np.uint8)
    return torch.from_numpy(data).view(getattr(torch, FLOAT_NAMES[dtype]))
