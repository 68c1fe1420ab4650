"""The compiled library: found beside its source, loaded once."""

from __future__ import annotations

import ctypes
import hashlib
import os
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = ("kernels.c", "selection.c", "pages.c", "operands.h", "numbers.h")

FUNCTIONS = (
    "hubmerge_weighted_sum",
    "hubmerge_dots",
    "hubmerge_count_non_finite",
    "hubmerge_magnitudes",
    "hubmerge_tally",
    "hubmerge_find",
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
    _declare(loaded)
    return loaded if loaded.hubmerge_has_fused_multiply_add() else None


@cache
def brief_library() -> ctypes.PyDLL:
    """Returns the library, where there is one, for calls that take microseconds: Python's lock is kept meanwhile.

    To give it away and wait for it again takes longer, as soon as another thread wants it.
    """
    loaded = ctypes.PyDLL(str(library_path()))
    _declare(loaded)
    return loaded


def _declare(loaded: ctypes.CDLL) -> None:
    for name in FUNCTIONS:
        getattr(loaded, name).restype = None
