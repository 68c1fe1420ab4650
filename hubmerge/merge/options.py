"""What callers may choose about a merge, besides its recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hubmerge.card.lock import LockedOptions
from hubmerge.merge.devices import HOST, device_arguments, device_class
from hubmerge.merge.licensing import LicenceChoice
from hubmerge.merge.plan import DEFAULT_SHARD_BYTES
from hubmerge.merge.stream import StreamOptions


@dataclass(frozen=True)
class MergeOptions:
    """What holds for any merge, wherever it goes.

    Attributes:
        lenient: Unknown recipe keys are warnings instead of errors.
        seed: Takes the place of the recipe's.
        shard_bytes: Most bytes of tensors in one output file.
        stream: Threads, read-ahead and connections at most.
        memory_bytes: Most memory that the merge may take; None for a share of what is available.
        disk_bytes: Most disk; None for what the merge asks for.
        source_token: For reading parents; None for the token that the user logged in with, False for none.
        licence: The licence to publish under, in place of the one that follows from the parents'.
        template: A card template in place of the shipped one.
        lineage: Whether the parents' own ancestors are read; the licence depends on them.
        diagnostics: Whether statistics of the weights are collected and drawn for the card.
        allow_nan: Whether tensors that the merge fills with NaN or infinity are published.
        device: What computes: `cpu`, `cuda` for every visible CUDA device, or `cuda:N`.
    """

    lenient: bool = False
    seed: int | None = None
    shard_bytes: int = DEFAULT_SHARD_BYTES
    stream: StreamOptions = field(default_factory=StreamOptions)
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    source_token: str | bool | None = None
    licence: LicenceChoice | None = None
    template: Path | None = None
    lineage: bool = True
    diagnostics: bool = True
    allow_nan: bool = False
    device: str = HOST

    @property
    def arguments(self) -> tuple[str, ...]:
        """Those of the command line without which other bytes come out."""
        seed = () if self.seed is None else ("--seed", str(self.seed))
        shards = () if self.shard_bytes == DEFAULT_SHARD_BYTES else ("--shard-size", str(self.shard_bytes))
        return (*seed, *shards, *device_arguments(self.device), *(("--lenient",) if self.lenient else ()))

    @property
    def recorded(self) -> LockedOptions:
        """Those that the lock file keeps."""
        return LockedOptions(
            shard_bytes=self.shard_bytes,
            lenient=self.lenient,
            lineage=self.lineage,
            diagnostics=self.diagnostics,
            allow_nan=self.allow_nan,
            seed=self.seed,
            device=device_class(self.device),
        )


DEFAULT_OPTIONS = MergeOptions()
