from __future__ import annotations

import re
from pathlib import Path

import pytest

import hubmerge
from hubmerge.merge.methods import METHODS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAP = README.partition("## Map of the code")[2]


@pytest.mark.parametrize("room", ["weights", "merge", "publish", "trainer"])
def test_the_map_names_every_module(room: str) -> None:
    modules = [path.name for path in sorted((ROOT / "hubmerge" / room).glob("*.py")) if path.stem != "__init__"]
    assert [name for name in modules if not re.search(rf"\b{name}", MAP)] == []


def test_the_map_names_nothing_that_is_not_there() -> None:
    names = set(re.findall(r"\b\w+\.py\b", MAP))
    assert [name for name in sorted(names) if not any(ROOT.glob(f"hubmerge/**/{name}")) and name[:5] != "test_"] == []


def test_the_list_of_methods_is_complete() -> None:
    listed = README.partition("* **Methods**:")[2].partition(";")[0]
    assert sorted(listed.replace("\n", " ").replace(" ", "").split(",")) == sorted(METHODS)


def test_every_public_name_is_there_and_documented() -> None:
    for name in hubmerge.__all__:
        assert name == "__version__" or (getattr(hubmerge, name).__doc__ or "").strip(), name
