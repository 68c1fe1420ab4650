"""Where a run keeps what it has done, so that the same command goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hubmerge.errors import TrainError
from hubmerge.publish.folder_lock import take_lock
from hubmerge.trainer.plan import DpoPlan
from hubmerge.version import __version__

FINGERPRINT_CHARACTERS = 12


@dataclass(frozen=True)
class RunFolder:
    """The work of one run: of one model, data and settings, wherever its result goes."""

    root: Path

    @property
    def merged(self) -> Path:
        """The recipe's result, where a recipe is tuned."""
        return self.root / "merged"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of the training."""
        return self.root / "checkpoints"

    @property
    def adapter(self) -> Path:
        """What was trained."""
        return self.root / "adapter"

    @property
    def quantised(self) -> Path:
        """What NF4 makes of the untuned weights, where the adapter is added to that."""
        return self.root / "nf4"

    def folded(self, fingerprint: str) -> Path:
        """The tuned model; another way of folding is another folder."""
        return self.root / f"folded-{fingerprint[:FINGERPRINT_CHARACTERS]}"

    def proof(self, folded: Path | None) -> Path:
        """What was measured of the model in a folder; of the adapter alone for None."""
        return self.root / f"proof-{'adapter' if folded is None else folded.name}.json"

    def tasks(self, folded: Path | None) -> Path:
        """What lm-evaluation-harness said of it."""
        return self.root / f"tasks-{'adapter' if folded is None else folded.name}.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps every other run out while the block lasts.

        Raises:
            TrainError: Another run is at work.
        """
        lock = take_lock(self.root)
        if lock is None:
            raise TrainError(
                f"another run of this tuning works in {self.root}",
                hint="Wait for its end: the same command then takes up what it did.",
            )
        try:
            yield
        finally:
            os.close(lock)


def run_folder(plan: DpoPlan, merge_fingerprint: str, parent: Path | None = None) -> RunFolder:
    """Returns the folder of a run, made if it does not exist.

    Args:
        plan: With the data sets at their commits.
        merge_fingerprint: Of the merge that makes the untuned model; it covers the parents' commits.
        parent: Holds the folders of all runs; None for the user's cache.
    """
    root = (parent or _default_parent()) / run_fingerprint(plan, merge_fingerprint)[:FINGERPRINT_CHARACTERS]
    root.mkdir(parents=True, exist_ok=True)
    return RunFolder(root)


def run_fingerprint(plan: DpoPlan, merge_fingerprint: str) -> str:
    """Returns the SHA-256 of everything that decides the adapter, as 64 hexadecimal digits."""
    settings = plan.settings
    description = {
        "hubmerge": __version__,
        "model": merge_fingerprint,
        "tokenizer": plan.subject.tokenizer_sha256,
        "datasets": [[asdict(source), each.sha] for source, each in zip(settings.datasets, plan.opened, strict=True)],
        **{name: asdict(getattr(settings, name)) for name in ("loss", "training", "lora")},
        "quant": settings.memory.quant,
        "held_out": [settings.evaluation.holdout, settings.evaluation.max_pairs],
    }
    return hashlib.sha256(json.dumps(description, sort_keys=True, default=str).encode()).hexdigest()


def save_json(path: Path, content: Any) -> None:
    """Writes a file that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, default=float))
    partial.replace(path)


def _default_parent() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "hubmerge" / "dpo"
