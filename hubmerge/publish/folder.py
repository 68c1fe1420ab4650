"""A merge written to a folder of this machine."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from hubmerge.errors import PublishError
from hubmerge.publish.folder_lock import take_lock
from hubmerge.publish.plan_note import LARGEST_NOTE_BYTES, NOTE_FILE, PlanNote, parse_note
from hubmerge.publish.publisher import Published, StagedShard
from hubmerge.weights.shards import DISK_FULL, FinishedShard, hash_file

STAGING_PREFIX = ".hubmerge-"
LAST_FILES = ("model.safetensors.index.json", "config.json", "adapter_config.json")
"""Moved up after everything else, so that a folder without them is plainly unfinished to every loader."""
NOTES_SUFFIX = ".notes"
"""Of the file beside a staged shard that holds its notes."""
MOVING_LIST = "moving.txt"
"""Names that are being moved up, a line each: what a run that died half-way may have left in the target itself."""

SUMS_FILE = "SHA256SUMS"
"""The staged shards, in the format of sha256sum: one that is not as it was staged is made again."""


class FolderPublisher:
    """Stages shards in a hidden folder inside the target, and moves them up at the end.

    Args:
        folder: The target; made if it does not exist. It must be empty, or hold only what an earlier run of the same
            plan left.
        fingerprint: The plan's; names the staging folder, so that shards of another plan are never taken up.
        note: What the plan is; left in the staging folder for those who find it there.
    """

    def __init__(self, folder: Path, *, fingerprint: str, note: PlanNote | None = None) -> None:
        self._folder = folder
        self._note = note
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
            if self._note is not None:
                (self._staging / NOTE_FILE).write_bytes(self._note.render())
            self._take_back()
            return self._intact_shards()
        except OSError as error:
            is_full = error.errno in DISK_FULL
            hint = "Make room and run the same command." if is_full else "Choose a folder that you may write to."
            raise PublishError(f"{self._folder}: {error.strerror}", hint=hint) from error

    def leftovers(self) -> list[str]:
        """Returns nothing: a folder with another plan's shards is refused."""
        return []

    def _intact_shards(self) -> dict[str, StagedShard]:
        """Returns the shards that are as they were staged, and removes all others."""
        sums = self._sums()
        staged = [_staged(path) for path in sorted(self._staging.glob("*.safetensors")) if path.name in sums]
        intact = {shard.filename: shard for shard in staged if shard.sha256 == sums[shard.filename]}
        for path in sorted(self._staging.glob("*.safetensors")):
            if path.name not in intact:
                path.unlink()
        return intact

    def _sums(self) -> dict[str, str]:
        try:
            lines = (self._staging / SUMS_FILE).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}

    def _take_lock(self) -> None:
        self._lock = take_lock(self._staging)
        if self._lock is None:
            raise PublishError(
                f"another run is merging into {self._folder}", hint="Wait for its end, or choose another folder."
            )

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
        if self._staging.is_dir() and not any(self._staging.iterdir()):
            self._staging.rmdir()
            raise PublishError(
                f"{self._folder} holds this very merge, of a run that was killed when it had finished",
                hint="Nothing is left to do.",
            )
        leftover = next((name for name in others if name.startswith(STAGING_PREFIX)), None)
        if leftover is not None:
            raise self._other_plan(leftover)
        raise PublishError(
            f"{self._folder} is not empty (it holds {others[0]})", hint="Choose a new or an empty folder."
        )

    def _other_plan(self, leftover: str) -> PublishError:
        note = read_note(self._folder / leftover)
        differences = [] if note is None or self._note is None else note.differences(self._note)
        listed = "".join(f"\n  - {difference}" for difference in differences)
        return PublishError(
            f"{self._folder} holds an unfinished merge of another plan ({leftover}){':' if listed else ''}{listed}",
            hint=f"Choose another folder, or remove it: hubmerge clean {shlex.quote(str(self._folder))}",
        )

    def existing(self, path: str) -> bytes | None:
        """Returns None: the folder was empty."""
        return None

    def stage(self, shard: FinishedShard, notes: bytes = b"") -> StagedShard:
        """Leaves the shard where it is, and notes that it is finished."""
        try:
            if notes:
                _notes_of(shard.path).write_bytes(notes)
            with (self._staging / SUMS_FILE).open("a") as sums:
                sums.write(f"{shard.sha256}  {shard.path.name}\n")
        except OSError as error:
            raise PublishError(
                f"{self._folder}: {error.strerror}", hint="Make room and run the same command."
            ) from error
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
        self._tidy()

    def _tidy(self) -> None:
        """Removes the staging folder; the list of moves goes last, since it tells a later run whose files these are."""
        for path in self._staging.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != MOVING_LIST:
                path.unlink()
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


def read_note(staging: Path) -> PlanNote | None:
    """Returns what a staging folder is for, None if it does not tell."""
    try:
        with (staging / NOTE_FILE).open("rb") as file:
            return parse_note(file.read(LARGEST_NOTE_BYTES + 1))
    except OSError:
        return None


def _staged(path: Path) -> StagedShard:
    notes = _notes_of(path)
    return StagedShard(path.name, path.stat().st_size, hash_file(path), notes.read_bytes() if notes.is_file() else b"")


def _notes_of(shard: Path) -> Path:
    return shard.with_name(shard.name + NOTES_SUFFIX)
