"""NaN and infinity in what is about to be published."""

from __future__ import annotations

import numpy as np

from hubmerge.merge.native import kernels
from hubmerge.merge.native.kernels import Stored, can_run
from hubmerge.merge.watch import Bytes, Values

_EXPONENTS = {
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F32": (np.uint32, 0x7F80_0000),
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
}
"""dtype -> integers of its width, and the bits of its exponent, all of which NaN and infinity have."""


def count_non_finite(data: Bytes, dtype: str) -> int:
    """Returns how many values of a tensor, as it is stored, are NaN or infinite."""
    if can_run([dtype]):
        return kernels.count_non_finite(Stored(data, dtype))
    unsigned, exponent = _EXPONENTS[dtype]
    bits = data.view(unsigned) & unsigned(exponent)
    return int((bits == exponent).sum()) if bits.size and int(bits.max()) == exponent else 0


def count_non_finite_values(values: Values) -> int:
    """Returns how many of the values are NaN or infinite."""
    return int(values.size - np.isfinite(values).sum())
