"""A disk that fills up while a merge runs: a small file system, or a limit on the size of a process's files."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

SMALL_DISK_BYTES = 2_500_000
"""Room for the whole merge, until somebody else takes it."""
LARGEST_FILE_BYTES = 150_000
"""In the middle of a shard."""
FILLER = "theirs"
BLOCK_BYTES = 4096


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Makes a folder a file system of its own while the block runs; gives whether this user may."""
    folder.mkdir()
    size = f"size={SMALL_DISK_BYTES}"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Writes a file that takes all that is free."""
    with contextlib.suppress(OSError), (disk / FILLER).open("wb", buffering=0) as file:
        while file.write(b"\1" * BLOCK_BYTES):
            pass


def make_room(disk: Path) -> None:
    """Removes that file."""
    (disk / FILLER).unlink(missing_ok=True)


def limit_files(process_id: int) -> None:
    """Lets a running process write no file beyond the limit any more."""
    _, hard = resource.prlimit(process_id, resource.RLIMIT_FSIZE)
    resource.prlimit(process_id, resource.RLIMIT_FSIZE, (LARGEST_FILE_BYTES, hard))
