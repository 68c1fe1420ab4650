"""Headers of stored safetensors files, for the counts and the metadata that the Hub shows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

_MAX_HEADER_BYTES = 100_000_000


def read_header(file: Path) -> dict[str, Any] | None:
    """Returns the JSON header of a safetensors file; None for a file that is not one."""
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 2 <= length <= _MAX_HEADER_BYTES:
            return None
        try:
            header = json.loads(handle.read(length))
        except (ValueError, RecursionError):
            return None
    return header if isinstance(header, dict) else None


def parameter_counts(headers: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Returns how many parameters there are of each dtype; what is not a tensor counts for nothing."""
    counts: Counter[str] = Counter()
    for header in headers:
        for tensor in header.values():
            match tensor:
                case {"dtype": str(dtype), "shape": [*shape]} if all(isinstance(size, int) for size in shape):
                    counts[dtype] += prod(shape)
    return dict(counts)
