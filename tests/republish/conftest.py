"""One merge that tests may look at without changing it, and new ones to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.localhub import LocalHub
from tests.republish.merges import Published, publish_merge


@pytest.fixture(scope="session")
def untouched(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_merge(hub, tmp_path_factory.mktemp("untouched"))


@pytest.fixture
def merge(hub: LocalHub, tmp_path: Path) -> Published:
    return publish_merge(hub, tmp_path)
