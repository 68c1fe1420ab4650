from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub
from tests.end_to_end.merges import Parents, write_parents


@pytest.fixture(scope="session")
def api(hub: LocalHub) -> HfApi:
    return HfApi(token=hub.token)


@pytest.fixture(scope="session")
def parents(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Parents:
    return write_parents(tmp_path_factory.mktemp("parents"), hub.token, owner="local")


@pytest.fixture
def recipe(parents: Parents, tmp_path: Path) -> Path:
    """A recipe of a repository of recipes, whose models are on the local Hub."""
    file = tmp_path / "merges/merged.yaml"
    file.parent.mkdir()
    file.write_text(json.dumps(parents.recipe()))
    return file
