"""Which output files of a merge are made anew, and which its repo holds already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hubmerge.card.lock import LockFacts
from hubmerge.diagnostics.collect import clean_notes
from hubmerge.merge.expr import loads
from hubmerge.merge.fingerprint import shard_contents
from hubmerge.merge.plan import Plan, ShardPlan
from hubmerge.publish import KeptShard, StagedShard


@dataclass(frozen=True, kw_only=True)
class Work:
    """What there is to do for the new merge.

    Attributes:
        made: Output files to make and upload.
        kept: Output files that the repo holds already, by their names in the new merge.
        read_bytes: Of the parents' weights.
        write_bytes: Size of what is made.
    """

    made: tuple[str, ...]
    kept: tuple[str, ...]
    read_bytes: int
    write_bytes: int


def kept_shards(plan: Plan, lock: LockFacts, notes: Mapping[str, bytes]) -> tuple[KeptShard, ...]:
    """Returns the output files of a plan that an earlier merge has, under whichever name.

    Args:
        plan: The new merge.
        lock: Of the earlier one.
        notes: What the run that made a file found in it, by the file's SHA-256; nothing, if there is none.
    """
    known_outputs = {output.made_from: output for output in lock.outputs if output.made_from}
    contents = shard_contents(plan)
    return tuple(
        KeptShard(
            old.path,
            StagedShard(shard.filename, old.size_bytes, old.sha256, notes.get(old.sha256) or clean_notes(shard)),
        )
        for shard in plan.shards
        if (old := known_outputs.get(contents[shard.filename])) and old.size_bytes == shard.size_bytes
    )


def work_of(plan: Plan, kept: Sequence[KeptShard]) -> Work:
    """Returns what is left to do for a plan."""
    names = {each.shard.filename for each in kept}
    made = [shard for shard in plan.shards if shard.filename not in names]
    return Work(
        made=tuple(shard.filename for shard in made),
        kept=tuple(shard.filename for shard in plan.shards if shard.filename in names),
        read_bytes=sum(map(_read_bytes, made)),
        write_bytes=sum(shard.size_bytes for shard in made),
    )


def _read_bytes(shard: ShardPlan) -> int:
    return sum(load.tensor.size_bytes for tensor in shard.tensors for load in loads(tensor.expr))
