"""The dtypes that weights are merged in: safetensors codes, their names in recipes and configs, and their promotion."""

from __future__ import annotations

from collections.abc import Iterable

FLOAT_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""safetensors code -> the name that recipes and config.json use."""

FLOAT_CODES = {name: code for code, name in FLOAT_NAMES.items()}
"""The other way round."""


def is_float(code: str) -> bool:
    """Returns whether tensors of this safetensors dtype are merged; the others must agree and are copied."""
    return code in FLOAT_NAMES


def promote(codes: Iterable[str]) -> str:
    """Returns the smallest float dtype that holds every value of the given ones.

    float16 and bfloat16 together need float32, as neither holds the other.
    """
    distinct = sorted(set(codes))
    if len(distinct) == 1:
        return distinct[0]
    return "F64" if "F64" in distinct else "F32"
