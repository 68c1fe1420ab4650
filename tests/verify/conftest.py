"""One merge of three siblings from the local Hub, published in a folder, that tests take copies of to tamper with."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_to_folder
from tests.checkpoints import push_folder, write_llama
from tests.verify.merges import OPTIONS, Siblings


@pytest.fixture(scope="session")
def siblings(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Siblings:
    folder = tmp_path_factory.mktemp("siblings")
    folders = tuple(write_llama(folder / f"sibling-{seed}", seed=seed) for seed in range(3))
    for path in folders:
        push_folder(hub.token, f"local/{path.name}", path)
    return Siblings(tuple(f"local/{path.name}" for path in folders), folders)


@pytest.fixture(scope="session")
def merge(siblings: Siblings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody may write to it."""
    folder = tmp_path_factory.mktemp("published") / "merge"
    merge_to_folder(siblings.dare_ties(), folder, options=OPTIONS)
    return folder
