"""A folder that one run works in at a time; the lock ends with the process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take_lock(folder: Path) -> int | None:
    """Returns the descriptor that holds a folder's lock until it is closed; None if another run holds it.

    On a file system without locks nobody is kept out.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        return descriptor
    return descriptor
