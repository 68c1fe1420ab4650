"""The compiled library: found beside its source, loaded once."""

from __future__ import annotations

import ctypes
import hashlib
import os
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = ("kernels.c", "numbers.h")

FUNCTIONS = (
    "hubmerge_weighted_sum",
    "hubmerge_dots",
    "hubmerge_magnitudes",
    "hubmerge_tally",
    "hubmerge_thin",
    "hubmerge_l1",
    "hubmerge_add_task_vectors",
)


def library_path(folder: Path = FOLDER) -> Path:
    """Returns where the library built from a folder's sources lies; the name changes with every change of them."""
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in SOURCES)).hexdigest()
    return folder / f"_kernels_{digest[:12]}.so"


@cache
def library() -> ctypes.CDLL | None:
    """Returns the library, or None where torch has to do its work.

    That is where none was built from this version of the source, where `HUBMERGE_NATIVE=0`, and on processors without
    fused multiply-add, whose torch rounds differently.
    """
    if os.environ.get("HUBMERGE_NATIVE") == "0":
        return None
    try:
        loaded = ctypes.CDLL(str(library_path()))
    except OSError:
        return None
    for name in FUNCTIONS:
        getattr(loaded, name).restype = None
    return loaded if loaded.hubmerge_has_fused_multiply_add() else None
