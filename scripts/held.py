"""A process held to a file system and a memory of a set size, and how much of both it has used.

As root, the limits are the kernel's: a loop device with ext4, and a memory cgroup (version 1 or 2). Elsewhere a thread
looks every 20 ms and kills the process when it has gone over.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PAUSE_SECONDS = 0.02
GROUP = "hubmerge-bench"
LIMIT_FILES = {Path("/sys/fs/cgroup/memory"): "memory.limit_in_bytes", Path("/sys/fs/cgroup"): "memory.max"}


@dataclass
class Usage:
    """What a process has used at most, and how long it ran; resident memory without cached files.

    Attributes:
        is_enforced: Whether both limits were the kernel's.
    """

    disk_bytes: int = 0
    memory_bytes: int = 0
    seconds: float = 0.0
    exit_code: int = 0
    is_enforced: bool = False


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[bool]:
    """Makes the folder a file system of this size if that is allowed, and tells whether it is one."""
    folder.mkdir(parents=True)
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(size_bytes)
    made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=False).returncode == 0
    mounted = made and subprocess.run(["mount", "-o", "loop,discard", image, folder], check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)
        image.unlink()


@contextmanager
def memory_group(size_bytes: int) -> Iterator[Path | None]:
    """Gives the file whose processes share this memory; None where no group can be made."""
    for root, limit_file in LIMIT_FILES.items():
        group = root / GROUP
        if not (root / "cgroup.procs").exists():
            continue
        with suppress(OSError):
            group.mkdir(exist_ok=True)
            (group / limit_file).write_text(str(size_bytes))
            try:
                yield group / "cgroup.procs"
            finally:
                group.rmdir()
            return
    yield None


def run_held(
    command: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    *,
    disk_limit_bytes: int,
    memory_limit_bytes: int,
) -> tuple[Usage, str]:
    """Runs a command in a folder of its own and returns what it used and printed; it is killed beyond a limit."""
    usage = Usage()
    with small_disk(folder, disk_limit_bytes) as is_small, memory_group(memory_limit_bytes) as group:
        usage.is_enforced = is_small and group is not None
        started = time.monotonic()
        with subprocess.Popen(
            _joining(command, group), cwd=folder, env=variables, stdout=subprocess.PIPE, text=True
        ) as process:
            watcher = threading.Thread(
                target=_watch, args=(process, folder, usage), kwargs={"limits": (disk_limit_bytes, memory_limit_bytes)}
            )
            watcher.start()
            printed, _ = process.communicate()
            watcher.join()
        usage.seconds, usage.exit_code = time.monotonic() - started, process.returncode
    return usage, printed


def _joining(command: Sequence[str], group: Path | None) -> list[str]:
    """Returns the command as a process that joins the group before it becomes what it shall be."""
    if group is None:
        return list(command)
    return ["bash", "-c", 'echo $$ >"$0" && exec "$@"', str(group), *command]


def _watch(process: subprocess.Popen[str], folder: Path, usage: Usage, *, limits: tuple[int, int]) -> None:
    while process.poll() is None:
        usage.disk_bytes = max(usage.disk_bytes, disk_use(folder))
        usage.memory_bytes = max(usage.memory_bytes, memory_use(process.pid))
        if usage.disk_bytes > limits[0] or usage.memory_bytes > limits[1]:
            process.kill()
        time.sleep(PAUSE_SECONDS)


def disk_use(folder: Path) -> int:
    """Returns the bytes that the files in a folder occupy; a file that is laid out but not filled occupies few."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512  # noqa: PTH118  # as fast as it goes
    return total


def memory_use(pid: int) -> int:
    """Returns the anonymous pages of a process in bytes; 0 once it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0
