from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.errors import SourceError, TransferError
from hubmerge.weights.files import LocalFiles


def write(path: Path, content: bytes = b"content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_label_is_the_folder_as_it_was_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert LocalFiles(Path("model")).label == "model"


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret")
    write(tmp_path / "model" / "config.json")
    (tmp_path / "model" / "model.safetensors").symlink_to(secret)
    files = LocalFiles(tmp_path / "model")
    assert list(files.entries()) == ["config.json"]
    with pytest.raises(SourceError, match=r"model has no file model\.safetensors$"):
        files.read("model.safetensors", 0, 1)


def test_a_linked_folder_is_not_entered(tmp_path: Path) -> None:
    write(tmp_path / "secrets" / "secret")
    write(tmp_path / "model" / "config.json")
    (tmp_path / "model" / "sub").symlink_to(tmp_path / "secrets", target_is_directory=True)
    assert list(LocalFiles(tmp_path / "model").entries()) == ["config.json"]


def test_a_link_within_the_folder_is_a_file(tmp_path: Path) -> None:
    write(tmp_path / "model" / "real", b"abc")
    (tmp_path / "model" / "link").symlink_to("real")
    assert LocalFiles(tmp_path / "model").read("link", 1, 3) == b"bc"


def test_a_snapshot_of_the_hub_cache_links_into_its_blobs(tmp_path: Path) -> None:
    write(tmp_path / "models--org--name" / "blobs" / "abc", b"weights")
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123"
    (snapshot / "sub").mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    (snapshot / "sub" / "model.safetensors").symlink_to("../../../blobs/abc")
    files = LocalFiles(snapshot)
    assert files.read("model.safetensors", 0, 7) == b"weights"
    assert files.read("sub/model.safetensors", 0, 7) == b"weights"


def test_a_snapshot_does_not_reach_another_repo(tmp_path: Path) -> None:
    write(tmp_path / "models--other--name" / "blobs" / "abc")
    write(tmp_path / "models--org--name" / "blobs" / "def")
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../../models--other--name/blobs/abc")
    assert list(LocalFiles(snapshot).entries()) == []


def test_a_folder_that_is_a_link_itself_is_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "real" / "config.json", b"{}")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert LocalFiles(tmp_path / "link").read("config.json", 0, 2) == b"{}"


def test_hidden_and_broken_files_do_not_count(tmp_path: Path) -> None:
    write(tmp_path / ".git" / "objects" / "x")
    write(tmp_path / ".hidden")
    write(tmp_path / "config.json")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "endless").symlink_to("endless")
    assert list(LocalFiles(tmp_path).entries()) == ["config.json"]


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "x", b"0123456789")
    files = LocalFiles(tmp_path)
    assert files.entries()["x"].size_bytes == 10
    path.write_bytes(b"0123")
    with pytest.raises(TransferError) as caught:
        files.read("x", 0, 10)
    assert str(caught.value) == f"{path} ends 6 bytes too early, at 4"


def test_a_file_that_vanishes_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "x")
    files = LocalFiles(tmp_path)
    files.entries()
    path.unlink()
    with pytest.raises(TransferError) as caught:
        files.read("x", 0, 1)
    assert str(caught.value) == f"cannot read {path}: No such file or directory"
