"""Merges of two small models from the local Hub, and what can be observed of them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.plan import Plan
from hubmerge.merge.progress import Stage
from hubmerge.weights.checkpoint import FIRST_READ_BYTES
from tests.checkpoints import push_folder, write_llama

SHARD_BYTES = 400_000
OPTIONS = MergeOptions(shard_bytes=SHARD_BYTES, diagnostics=False)
SHARD_COUNT = 4
SHAPE = {"layers": 4, "hidden": 128, "vocab": 512}
"""Of the models: 1.4 MB each, so that weights are told from the headers by their bytes."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Parents:
    """Two models on the Hub, each with all its weights in one file, and the same two on the disk."""

    repos: tuple[str, ...]
    folders: tuple[Path, ...]

    def recipe(self, *, weight: float = 0.25) -> dict[str, Any]:
        """Returns a merge of the two that are on the Hub."""
        return linear(self.repos, weight=weight)

    @property
    def header_bytes(self) -> int:
        """What is read of them to plan."""
        return FIRST_READ_BYTES * len(self.repos)


def linear(models: tuple[Any, ...], *, weight: float = 0.25) -> dict[str, Any]:
    """Returns a merge of two models, the first with this weight."""
    weights = (weight, 1 - weight)
    entries = [
        {"model": str(model), "parameters": {"weight": share}} for model, share in zip(models, weights, strict=True)
    ]
    return {"merge_method": "linear", "dtype": "bfloat16", "models": entries}


def write_parents(folder: Path, token: str, *, owner: str, private: bool = False) -> Parents:
    """Returns two new models of an owner."""
    folders = tuple(write_llama(folder / f"parent-{seed}", seed=seed, **SHAPE) for seed in (1, 2))
    number = next(_numbers)
    repos = tuple(f"{owner}/{path.name}-{number}" for path in folders)
    for repo, path in zip(repos, folders, strict=True):
        push_folder(token, repo, path, private=private)
    return Parents(repos, folders)


def new_repo(owner: str = "local") -> str:
    """Returns an id that no repo has."""
    return f"{owner}/merged-{next(_numbers)}"


def shard_hashes(api: HfApi, repo: str, revision: str = "main") -> dict[str, str]:
    """Returns the SHA-256 of every file of weights at the root."""
    files = api.list_repo_tree(repo, revision=revision)
    return {file.path: file.lfs.sha256 for file in files if file.path.endswith(".safetensors")}


def staged_shards(api: HfApi, repo: str) -> list[str]:
    """Returns the names of the shards on the staging branch, sorted; none if there is no such branch."""
    if not api.repo_exists(repo):
        return []
    branches = [branch.name for branch in api.list_repo_refs(repo).branches if branch.name.startswith("hubmerge/")]
    paths = [path for branch in branches for path in api.list_repo_files(repo, revision=branch)]
    return sorted(
        path.rpartition("/")[2] for path in paths if path.startswith(".hubmerge/") and path.endswith(".safetensors")
    )


def weight_bytes_read(hub: LocalHub) -> int:
    """Returns how many bytes of large files were fetched, the parts that hold headers included."""
    return sum(record.sent_bytes for record in hub.requests.matching("^GET /cdn/"))


@dataclass
class Recorder:
    """A Progress that keeps what it is told."""

    plan: Plan | None = None
    events: list[tuple[Stage, int]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    on_begin: Callable[[], object] = lambda: None

    def begin(self, plan: Plan) -> None:
        self.plan = plan
        self.on_begin()

    def advance(self, stage: Stage, size_bytes: int) -> None:
        self.events.append((stage, size_bytes))

    def skip(self, filename: str, size_bytes: int) -> None:
        self.skipped.append(filename)

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def total(self, stage: Stage) -> int:
        """Returns how many bytes went through a stage."""
        return sum(size_bytes for each, size_bytes in self.events if each is stage)


@contextmanager
def watching(look: Callable[[], object], *, pause_seconds: float = 0.002) -> Iterator[None]:
    """Looks again and again, in a thread, while the block runs and once after; fails if a look fails."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def watch() -> None:
        try:
            while not stop.is_set():
                look()
                time.sleep(pause_seconds)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    look()
    if failures:
        raise failures[0]


def texts(api: HfApi, repo: str) -> Mapping[str, str]:
    """Returns every small file of a repo, and the messages of its commits."""
    info = api.model_info(repo, files_metadata=True)
    small = [file.rfilename for file in info.siblings if file.lfs is None]
    messages = "\n".join(f"{commit.title}\n{commit.message}" for commit in api.list_repo_commits(repo))
    return {name: Path(api.hf_hub_download(repo, name)).read_text() for name in small} | {"commits": messages}
