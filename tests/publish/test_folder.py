from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from hubmerge.errors import PublishError
from hubmerge.publish import FolderPublisher, PlanNote, StagedShard
from hubmerge.weights.shards import FinishedShard, ShardFile

PRINT = "0123456789abcdef" * 4
STAGING = ".hubmerge-0123456789ab"


def publisher_of(folder: Path, fingerprint: str = PRINT) -> FolderPublisher:
    return FolderPublisher(folder, fingerprint=fingerprint)


def finished(publisher: FolderPublisher, name: str, content: bytes = b"weights") -> FinishedShard:
    shard = ShardFile.create(publisher.workspace / name, b"", size_bytes=len(content))
    shard.write(0, content)
    return shard.finish()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_nothing_but_the_hidden_staging_folder_is_seen_until_publish(tmp_path: Path) -> None:
    publisher = publisher_of(tmp_path / "a" / "out")
    assert publisher.open() == {}
    shard = publisher.stage(finished(publisher, "model.safetensors"))
    assert names(tmp_path / "a" / "out") == [f"{STAGING}/SHA256SUMS", f"{STAGING}/model.safetensors"]
    files = {"config.json": b"{}", "additional_chat_templates/tool_use.jinja": b"{{ x }}"}
    published = publisher.publish([shard], files)
    publisher.close()
    assert (published.url, published.commit) == (str(tmp_path / "a" / "out"), None)
    assert names(tmp_path / "a" / "out") == [*sorted([*files, "model.safetensors"])]
    assert not (tmp_path / "a" / "out" / STAGING).exists()


def test_an_empty_folder_is_a_target(tmp_path: Path) -> None:
    publisher = publisher_of(tmp_path)
    publisher.open()
    publisher.publish([publisher.stage(finished(publisher, "model.safetensors"))], {"config.json": b"{}"})
    assert names(tmp_path) == ["config.json", "model.safetensors"]


def test_a_folder_with_anything_in_it_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PublishError) as caught:
        publisher_of(tmp_path).open()
    assert str(caught.value) == f"{tmp_path} is not empty (it holds notes.txt)"
    assert caught.value.hint == "Choose a new or an empty folder."
    assert names(tmp_path) == ["notes.txt"]


def test_what_another_recipe_left_is_refused_and_kept(tmp_path: Path) -> None:
    earlier = publisher_of(tmp_path / "my model", "f" * 64)
    earlier.open()
    finished(earlier, "model.safetensors")
    with pytest.raises(PublishError) as caught:
        publisher_of(tmp_path / "my model").open()
    assert str(caught.value) == (
        f"{tmp_path}/my model holds an unfinished merge of another plan (.hubmerge-ffffffffffff)"
    )
    assert caught.value.hint == f"Choose another folder, or remove it: hubmerge clean '{tmp_path}/my model'"
    assert names(tmp_path / "my model") == [".hubmerge-ffffffffffff/model.safetensors"]


def test_a_file_in_the_folders_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    publisher = publisher_of(tmp_path / "out")
    with pytest.raises(PublishError) as caught:
        publisher.open()
    publisher.close()
    assert str(caught.value) == f"{tmp_path}/out: Not a directory"
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PublishError) as caught:
        publisher_of(tmp_path / "out").open()
    assert str(caught.value) == f"{tmp_path}/out: Permission denied"


def test_finished_shards_of_the_same_plan_are_found_with_their_hashes(tmp_path: Path) -> None:
    first = publisher_of(tmp_path / "out")
    first.open()
    first.stage(finished(first, "model-00001-of-00002.safetensors", b"one"))
    ShardFile.create(first.workspace / "model-00002-of-00002.safetensors", b"tw", size_bytes=3)
    first.close()
    assert publisher_of(tmp_path / "out").open() == {
        "model-00001-of-00002.safetensors": StagedShard(
            "model-00001-of-00002.safetensors", 3, hashlib.sha256(b"one").hexdigest()
        )
    }


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    publisher = publisher_of(tmp_path / "out")
    publisher.open()
    publisher.close()
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_that_was_there_stays(tmp_path: Path) -> None:
    publisher = publisher_of(tmp_path)
    publisher.open()
    publisher.close()
    assert list(tmp_path.iterdir()) == []


def test_two_runs_never_write_to_the_same_staging_folder(tmp_path: Path) -> None:
    first, second = publisher_of(tmp_path / "out"), publisher_of(tmp_path / "out")
    first.open()
    unfinished = ShardFile.create(first.workspace / "model.safetensors", b"", size_bytes=7)
    with pytest.raises(PublishError) as caught:
        second.open()
    second.close()
    assert str(caught.value) == f"another run is merging into {tmp_path}/out"
    assert caught.value.hint == "Wait for its end, or choose another folder."
    assert names(tmp_path / "out") == [f"{STAGING}/model.safetensors.part"]
    unfinished.abort()
    first.close()
    second.open()


def test_a_shard_that_is_not_as_it_was_staged_is_made_again(tmp_path: Path) -> None:
    first = publisher_of(tmp_path / "out")
    first.open()
    kept, spoiled = "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"
    for name in (kept, spoiled):
        first.stage(finished(first, name))
    unnoted = finished(first, "model-00003-of-00003.safetensors")
    (first.workspace / spoiled).write_bytes(b"Weights")
    first.close()
    second = publisher_of(tmp_path / "out")
    assert list(second.open()) == [kept]
    assert not unnoted.path.exists()
    assert not (second.workspace / spoiled).exists()


def test_an_unfinished_merge_of_another_plan_shows_what_changed(tmp_path: Path) -> None:
    before = PlanNote({"hubmerge": "1.0", "parents": {"a/b": "1" * 40}, "recipe": {"models": [{"weight": 0.5}]}})
    now = PlanNote({"hubmerge": "1.1", "parents": {"a/b": "2" * 40}, "recipe": {"models": [{"weight": 0.25}]}})
    earlier = FolderPublisher(tmp_path, fingerprint="f" * 64, note=before)
    earlier.open()
    earlier.stage(finished(earlier, "model.safetensors"))
    with pytest.raises(PublishError) as caught:
        FolderPublisher(tmp_path, fingerprint=PRINT, note=now).open()
    assert str(caught.value) == (
        f"{tmp_path} holds an unfinished merge of another plan (.hubmerge-ffffffffffff):\n"
        "  - hubmerge: was 1.0, is 1.1\n"
        f"  - parents.a/b: was {'1' * 40}, is {'2' * 40}\n"
        "  - recipe.models[0].weight: was 0.5, is 0.25"
    )
