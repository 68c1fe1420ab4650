"""Merges to verify, and ways to tamper with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubmerge.card.lock import LOCK_FILE
from hubmerge.merge.options import MergeOptions
from hubmerge.verify.report import Check, Outcome, Report
from hubmerge.verify.run import VerifyOptions, verify_merge
from hubmerge.verify.sample import Sampling
from hubmerge.weights.checkpoint import read_header
from hubmerge.weights.files import LocalFiles
from hubmerge.weights.shards import hash_file
from tests.merge.recipes import whole

OPTIONS = MergeOptions(shard_bytes=10_000, seed=7, lineage=False)
"""The seed stands in no recipe, only in the lock file."""

FULL = VerifyOptions(sampling=Sampling(is_full=True))
K_PROJ = "model.layers.1.self_attn.k_proj.weight"


@dataclass(frozen=True)
class Siblings:
    """Models of one shape, on the Hub and on the disk."""

    repos: tuple[str, ...]
    folders: tuple[Path, ...]

    def dare_ties(self) -> dict[str, Any]:
        """Returns a merge of all of them that are on the Hub, with random masks."""
        base, *others = self.repos
        models = [({"model": repo}, {"weight": 0.5, "density": 0.5}) for repo in others]
        recipe = whole("dare_ties", base_model=base, dtype="bfloat16")
        recipe["models"] = [{**model, "parameters": parameters} for model, parameters in models]
        return recipe


def full_report(folder: Path) -> Report:
    """Returns what a verification of everything finds."""
    return verify_merge(str(folder), FULL)


def outcomes(report: Report, *wanted: Outcome) -> list[str]:
    """Returns the names of the checks that ended in one of these ways."""
    return [check.name for check in report.checks if check.outcome in wanted]


def differing(report: Report) -> list[str]:
    """Returns the names of the checks that found a difference."""
    return outcomes(report, Outcome.DIFFERS)


def check(report: Report, name: str) -> Check:
    """Returns the check of that name."""
    return next(each for each in report.checks if each.name == name)


def copied(merge: Path, folder: Path) -> Path:
    """Returns a copy that may be changed."""
    return Path(shutil.copytree(merge, folder))


def edit_text(path: Path, change: Callable[[str], str]) -> None:
    """Rewrites a file."""
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)


def edit_lock(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the content of the lock file."""
    path = folder / LOCK_FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def flip_bit(folder: Path, tensor: str, *, element: int = 3, bit: int = 2) -> None:
    """Changes one bit of one element of two bytes."""
    files = LocalFiles(folder)
    for path in folder.glob("*.safetensors"):
        for info in read_header(files, path.name).tensors:
            if info.name == tensor:
                content = bytearray(path.read_bytes())
                content[info.start + 2 * element + bit // 8] ^= 1 << bit % 8
                path.write_bytes(content)
    files.close()


def forge_checksums(folder: Path) -> None:
    """Makes lock file and card say of the files what they are."""
    old = {output["path"]: output["sha256"] for output in json.loads((folder / LOCK_FILE).read_text())["outputs"]}
    for path, sha256 in old.items():
        for document in (folder / LOCK_FILE, folder / "README.md"):
            document.write_text(document.read_text().replace(sha256, hash_file(folder / path)))
