"""A merge written to a folder of this machine."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from hubmerge.errors import PublishError
from hubmerge.publish.publisher import Published, StagedShard
from hubmerge.weights.shards import FinishedShard, hash_file

STAGING_PREFIX = ".hubmerge-"
LAST_FILES = ("model.safetensors.index.json", "config.json", "adapter_config.json")
"""Moved up after everything else, so that a folder without them is plainly unfinished to every loader."""
NOTES_SUFFIX = ".notes"
"""Of the file beside a staged shard that holds its notes."""
MOVING_LIST = "moving.txt"
"""Names that are being moved up, a line each: what a run that died half-way may have left in the target itself."""


class FolderPublisher:
    """Stages shards in a hidden folder inside the target, and moves them up at the end.

    Args:
        folder: The target; made if it does not exist. It must be empty, or hold only what an earlier run of the same
            plan left.
        fingerprint: The plan's; names the staging folder, so that shards of another plan are never taken up.
    """

    def __init__(self, folder: Path, *, fingerprint: str) -> None:
        self._folder = folder
        self._staging = folder / f"{STAGING_PREFIX}{fingerprint[:12]}"
        self._is_new = not folder.exists()
        self._lock: int | None = None

    @property
    def workspace(self) -> Path:
        """The staging folder itself: a finished shard is staged where it lies."""
        return self._staging

    def open(self) -> Mapping[str, StagedShard]:
        """Returns the shards that an earlier run of the same plan finished."""
        try:
            self._refuse_other_content()
            self._staging.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise PublishError(
                f"{self._folder}: {error.strerror}", hint="Choose a folder that you may write to."
            ) from error
        self._take_back()
        return {path.name: _staged(path) for path in sorted(self._staging.glob("*.safetensors"))}

    def _take_lock(self) -> None:
        """Locks the staging folder; the lock ends with the process, however that ends."""
        self._lock = os.open(self._staging, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._drop_lock()
            raise PublishError(
                f"another run is merging into {self._folder}", hint="Wait for its end, or choose another folder."
            ) from None
        except OSError:
            return  # a file system without locks

    def _drop_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_back(self) -> None:
        """Undoes what a run that died while moving files up had moved."""
        for name in self._moving():
            if (self._folder / name).is_file():
                (self._folder / name).replace(self._staging / name)
        (self._staging / MOVING_LIST).unlink(missing_ok=True)

    def _moving(self) -> list[str]:
        try:
            return (self._staging / MOVING_LIST).read_text().splitlines()
        except FileNotFoundError:
            return []

    def _refuse_other_content(self) -> None:
        if not self._folder.exists():
            return
        own = {self._staging.name, *(Path(name).parts[0] for name in self._moving())}
        others = sorted(path.name for path in self._folder.iterdir() if path.name not in own)
        if not others:
            return
        leftover = next((name for name in others if name.startswith(STAGING_PREFIX)), None)
        if leftover is not None:
            raise PublishError(
                f"{self._folder} holds an unfinished merge of another recipe ({leftover})",
                hint=f"Delete it, or choose another folder: rm -r {shlex.quote(str(self._folder / leftover))}",
            )
        raise PublishError(
            f"{self._folder} is not empty (it holds {others[0]})", hint="Choose a new or an empty folder."
        )

    def existing(self, path: str) -> bytes | None:
        """Returns None: the folder was empty."""
        return None

    def stage(self, shard: FinishedShard, notes: bytes = b"") -> StagedShard:
        """Leaves the shard where it is; it is at the target already."""
        try:
            if notes:
                _notes_of(shard.path).write_bytes(notes)
        except OSError as error:
            raise PublishError(f"cannot write {_notes_of(shard.path)}: {error.strerror}") from error
        return StagedShard(shard.path.name, shard.size_bytes, shard.sha256, notes)

    def publish(self, shards: Sequence[StagedShard], files: Mapping[str, bytes]) -> Published:
        """Writes the small files beside the shards, then moves everything up, what makes the folder loadable last."""
        try:
            for name, content in files.items():
                (self._staging / name).parent.mkdir(parents=True, exist_ok=True)
                (self._staging / name).write_bytes(content)
            names = [*(shard.filename for shard in shards), *files]
            self._move_up(sorted(names, key=lambda name: (name in LAST_FILES, name)))
        except OSError as error:
            raise PublishError(
                f"{self._folder}: {error.strerror}", hint="Make room and run the same command."
            ) from error
        return Published(str(self._folder), None)

    def _move_up(self, names: Sequence[str]) -> None:
        (self._staging / MOVING_LIST).write_text("\n".join(names))
        for name in names:
            (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self._staging / name).replace(self._folder / name)
        shutil.rmtree(self._staging)

    def close(self) -> None:
        """Removes the staging folder unless it holds finished shards to go on from; a target made for it goes too.

        Nothing is removed while another run works there.
        """
        is_ours = self._lock is not None
        if is_ours and self._staging.is_dir() and not any(self._staging.glob("*.safetensors")):
            shutil.rmtree(self._staging)
        self._drop_lock()
        if self._is_new and self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()


def _staged(path: Path) -> StagedShard:
    notes = _notes_of(path)
    return StagedShard(path.name, path.stat().st_size, hash_file(path), notes.read_bytes() if notes.is_file() else b"")


def _notes_of(shard: Path) -> Path:
    return shard.with_name(shard.name + NOTES_SUFFIX)
