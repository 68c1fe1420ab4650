from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hubmerge.publish.workspace import Workspace

LEAVE_ONE = """
import os
from hubmerge.publish.workspace import Workspace
workspace = Workspace()
(workspace.path / "model.safetensors.part").write_bytes(b"1")
print(workspace.path)
os._exit(9)
"""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = Path(subprocess.run([sys.executable, "-c", LEAVE_ONE], capture_output=True, text=True).stdout.strip())
    assert left.parent == tmp_path
    assert left.is_dir()
    workspace = Workspace()
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [workspace.path]
    workspace.close()
    workspace.close()
    assert list(tmp_path.iterdir()) == []


def test_folders_in_use_and_folders_of_others_stay(tmp_path: Path) -> None:
    running = Workspace()
    mine = tmp_path / "hubmerge-mine"
    mine.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".lock").touch()
    (tmp_path / "hubmerge-link").symlink_to(tmp_path / "elsewhere")
    Workspace().close()
    assert sorted(tmp_path.iterdir()) == sorted(
        [running.path, mine, tmp_path / "elsewhere", tmp_path / "hubmerge-link"]
    )
    running.close()
