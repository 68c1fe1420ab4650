"""Places that a merge can go to, and shards and files to bring there."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from hubmerge.publish import FolderPublisher, HubPublisher, HubTarget, Published, Publisher, StagedShard
from hubmerge.weights.shards import FinishedShard

PLAN = "0123456789abcdef0123"
OTHER_PLAN = "fedcba9876543210fedc"
MESSAGE = "A merge of two"
STAGING_BRANCH = "hubmerge/0123456789ab"

ONE = "model.safetensors"
FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
CARD = b"---\nlicense: mit\n---\n# A merge\n"

_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """A target.

    Attributes:
        publisher: Makes a publisher to it, for the plan of a fingerprint.
        visible: Returns what its readers find, by path; of a pull request what they find if it is merged.
    """

    publisher: Callable[[str], Publisher]
    visible: Callable[[Published | None], Mapping[str, bytes]]


def folder_place(folder: Path) -> Place:
    def visible(_: Published | None) -> dict[str, bytes]:
        paths = [path for path in folder.rglob("*") if path.is_file()]
        names = {path.relative_to(folder).as_posix(): path for path in paths}
        return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".hubmerge-")}

    return Place(lambda plan: FolderPublisher(folder, fingerprint=plan), visible)


def hub_place(token: str, repo: str, *, create_pr: bool = False) -> Place:
    target = HubTarget(repo, MESSAGE, create_pr=create_pr)

    def visible(published: Published | None) -> dict[str, bytes]:
        if create_pr and published is not None:
            HfApi(token=token).merge_pull_request(repo, int(published.url.rsplit("/", 1)[1]))
        return contents(token, repo)

    return Place(lambda plan: HubPublisher(target, fingerprint=plan, token=token), visible)


def new_repo(owner: str) -> str:
    """Returns an id that no repo has."""
    return f"{owner}/target-{next(_numbers)}"


def contents(token: str, repo: str, revision: str = "main") -> dict[str, bytes]:
    """Returns the files of a repo, without the one that the Hub itself puts there; of none if there is no repo."""
    api = HfApi(token=token)
    if not api.repo_exists(repo):
        return {}
    names = [name for name in api.list_repo_files(repo, revision=revision) if name != ".gitattributes"]
    return {name: Path(api.hf_hub_download(repo, name, revision=revision)).read_bytes() for name in names}


def stage(publisher: Publisher, name: str, content: bytes) -> StagedShard:
    """Writes a shard where the publisher wants it, and stages it."""
    path = publisher.workspace / name
    path.write_bytes(content)
    return publisher.stage(FinishedShard(path, len(content), hashlib.sha256(content).hexdigest()))


def publish(publisher: Publisher, shards: Mapping[str, bytes], files: Mapping[str, bytes]) -> Published:
    """Opens, stages, publishes and closes."""
    try:
        publisher.open()
        staged = [stage(publisher, name, content) for name, content in shards.items()]
        return publisher.publish(staged, files)
    finally:
        publisher.close()
