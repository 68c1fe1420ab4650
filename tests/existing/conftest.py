"""Merges that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub
from tests.existing.merges import merged_folder, new_parents, slerp


@pytest.fixture(scope="session")
def api(hub: LocalHub) -> HfApi:
    return HfApi(token=hub.token)


@pytest.fixture(scope="session")
def parents(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A permissive parent and a non-commercial one."""
    return new_parents(hub, tmp_path_factory.mktemp("parents"), "apache-2.0", "cc-by-nc-4.0")


@pytest.fixture(scope="session")
def merged(parents: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as mergekit leaves it, of those two, with a card that its author wrote."""
    return merged_folder(tmp_path_factory.mktemp("merged") / "my-merge", slerp(*parents))
