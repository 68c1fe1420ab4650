"""The seam between a running merge and the place that it ends up in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hubmerge.weights.shards import FinishedShard


@dataclass(frozen=True)
class StagedShard:
    """A shard that has safely arrived at the target, but that no reader of the target sees yet.

    Attributes:
        notes: What the run that made it left with it for a later run; never published. Empty if there is nothing.
    """

    filename: str
    size_bytes: int
    sha256: str
    notes: bytes = b""


@dataclass(frozen=True)
class KeptShard:
    """A shard of the merge that the target holds already, of an earlier merge.

    Attributes:
        source: Its path there.
        shard: As it is to be in the new merge.
    """

    source: str
    shard: StagedShard


@dataclass(frozen=True)
class Published:
    """What a publication made.

    Attributes:
        url: Where a person finds it: a page of the Hub, or the folder.
        commit: The commit, or None for a folder.
    """

    url: str
    commit: str | None


class Publisher(Protocol):
    """One merge's way to its target.

    `open` comes first and finds every reason why the target could not be written; `stage` takes shards as they are
    finished, in any number of runs; `publish` makes everything visible in one step. Until then readers of the target
    see what was there before.
    """

    @property
    def workspace(self) -> Path:
        """The folder to write unfinished shards into; on a file system with room for two of them."""

    def open(self) -> Mapping[str, StagedShard]:
        """Checks that the target can be written, and returns the shards of this very plan that have arrived, by name.

        Raises:
            PublishError: The target cannot be written, or holds something else.
        """

    def leftovers(self) -> list[str]:
        """Returns what is staged there for other plans, one sentence each; nothing of it is taken up."""

    def existing(self, path: str) -> bytes | None:
        """Returns a small file of the target as it was at `open`, or None if there was none."""

    def stage(self, shard: FinishedShard, notes: bytes = b"") -> StagedShard:
        """Brings a finished shard and its notes to the target and drops the local copy.

        Raises:
            PublishError: It did not arrive.
        """

    def publish(self, shards: Sequence[StagedShard], files: Mapping[str, bytes]) -> Published:
        """Makes the staged shards and the small files the content of the target, in one step.

        Raises:
            TargetMovedError: Somebody else changed the target since `open`.
            PublishError: It did not arrive.
        """

    def close(self) -> None:
        """Removes the workspace; what is staged stays, for a later run to go on from."""
