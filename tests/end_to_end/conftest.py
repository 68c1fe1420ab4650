"""Parents that many merges share, and what must come out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.weights.hub_client import RetryPolicy
from hubmerge.weights.shards import hash_file
from tests.end_to_end.merges import OPTIONS, Parents, linear, write_parents


@pytest.fixture(scope="session")
def parents(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Parents:
    return write_parents(tmp_path_factory.mktemp("parents"), hub.token, owner="local")


@pytest.fixture(scope="session")
def folder(parents: Parents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The merge of the parents, made on the disk alone."""
    folder = tmp_path_factory.mktemp("merged") / "model"
    merge_to_folder(linear(parents.folders), folder, options=OPTIONS)
    return folder


@pytest.fixture(scope="session")
def expected(folder: Path) -> Mapping[str, str]:
    """The SHA-256 of every shard of the merge."""
    return {path.name: hash_file(path) for path in sorted(folder.glob("*.safetensors"))}


@pytest.fixture(scope="session")
def api(hub: LocalHub) -> HfApi:
    return HfApi(token=hub.token)


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "wait_seconds", lambda *_: 0.01)
