"""Random masks that depend on nothing but the recipe's seed, the tensor's name, the input's index and the element's.

A counter-based generator: an integer hash of the element's index, so that neither the order of blocks nor threads,
shards, a resumed run or the device can change a bit. The hash is "triple32" by Chris Wellons
(https://github.com/skeeto/hash-prospector) with one key at its input and one between its rounds. Its 32 bits serve two
neighbouring elements, 16 bits each: they resolve a probability to 1.5e-5.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubmerge.lazy_torch import torch
from hubmerge.merge.methods.method import Block

if TYPE_CHECKING:
    from torch import Tensor

LANE_VALUES = 65_536
"""Values of one element's 16 bits; as int16 they run from −32,768."""


@dataclass(frozen=True)
class MaskKey:
    """What tells one random mask from all others: two signed 32-bit numbers."""

    first: int
    second: int


def mask_key(seed: int, tensor_name: str, input_index: int) -> MaskKey:
    """Returns the key of one input's mask for one tensor."""
    digest = hashlib.sha256(f"{seed}\n{input_index}\n{tensor_name}".encode()).digest()
    return MaskKey(*struct.unpack("<ii", digest[:8]))


def lanes(key: MaskKey, block: Block, device: torch.device) -> Tensor:
    """Returns the random int16 of each element of a block, uniform over all 65,536 values.

    Element e takes half e & 1 (0 is the low half) of the hash of e >> 1. The index wraps at 2³² pairs.
    """
    first, stop = block.start >> 1, (block.stop + 1) >> 1
    pairs = torch.arange(stop - first, dtype=torch.int32, device=device).add_(_signed(first))
    skipped = block.start & 1
    return _hash(pairs, key).view(torch.int16)[skipped : skipped + block.elements]


def lane_limit(probability: float) -> int:
    """Returns the int16 that a lane is below with this probability, which lies in [0, 1)."""
    return min(round(probability * LANE_VALUES), LANE_VALUES - 1) - LANE_VALUES // 2


def keep_random(values: Tensor, block: Block, *, key: MaskKey, probability: float) -> Tensor:
    """Sets each element to zero unless its lane is below the limit, in place."""
    # A mask of the values' own type: comparing into bool and multiplying by that takes five times as long.
    mask = torch.lt(lanes(key, block, values.device), lane_limit(probability), out=torch.empty_like(values))
    return values.mul_(mask)


def _hash(x: Tensor, key: MaskKey) -> Tensor:
    """Hashes int32 in place."""
    shifted = torch.empty_like(x)
    x.bitwise_xor_(key.first)
    _xorshift(x, 17, shifted).mul_(_signed(0xED5AD4BB))
    _xorshift(x, 11, shifted).bitwise_xor_(key.second).mul_(_signed(0xAC4C1B51))
    _xorshift(x, 15, shifted).mul_(0x31848BAB)
    return _xorshift(x, 14, shifted)


def _xorshift(x: Tensor, bits: int, scratch: Tensor) -> Tensor:
    """Computes x ^= x >> bits in place for unsigned x: torch shifts copies of the sign bit in, which are masked off."""
    torch.bitwise_right_shift(x, bits, out=scratch)
    return x.bitwise_xor_(scratch.bitwise_and_((1 << (32 - bits)) - 1))


def _signed(value: int) -> int:
    """Returns the low 32 bits as a signed number."""
    return (value + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000
