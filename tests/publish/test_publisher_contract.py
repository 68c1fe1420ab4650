"""What every kind of Publisher promises, checked on each of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hubmerge.errors import PublishError
from hubmerge.localhub import LocalHub
from hubmerge.publish import StagedShard
from hubmerge.weights.shards import FinishedShard
from tests.publish.places import (
    CARD,
    FIRST,
    INDEX,
    ONE,
    OTHER_PLAN,
    PLAN,
    SECOND,
    Place,
    folder_place,
    hub_place,
    new_repo,
    publish,
    stage,
)

SHARDS = {FIRST: b"first" * 1000, SECOND: b"second" * 2000}
FILES = {"config.json": b"{}\n", INDEX: b'{"weight_map": {}}\n', "README.md": CARD, "sub/x.jinja": b"{{ x }}"}


@pytest.fixture(params=["folder", "hub", "pull request"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return folder_place(tmp_path / "merged")
    hub: LocalHub = request.getfixturevalue("hub")
    return hub_place(hub.token, new_repo("local"), create_pr=request.param == "pull request")


def test_a_new_target_holds_nothing(place: Place) -> None:
    publisher = place.publisher(PLAN)
    assert publisher.open() == {}
    assert publisher.existing("README.md") is None
    publisher.close()


def test_notes_stay_with_their_shard_and_are_never_published(place: Place) -> None:
    first = place.publisher(PLAN)
    first.open()
    path = first.workspace / ONE
    path.write_bytes(b"weights")
    staged = first.stage(FinishedShard(path, 7, hashlib.sha256(b"weights").hexdigest()), b'{"a":1}')
    first.close()
    again = place.publisher(PLAN)
    assert again.open() == {ONE: staged}
    assert staged.notes == b'{"a":1}'
    published = again.publish([staged], {"config.json": b"{}"})
    again.close()
    assert sorted(place.visible(published)) == ["config.json", ONE]


def test_the_workspace_is_there_until_the_end(place: Place) -> None:
    publisher = place.publisher(PLAN)
    publisher.open()
    workspace = publisher.workspace
    assert workspace.is_dir()
    publisher.close()
    assert not workspace.exists()


def test_a_publisher_that_was_never_opened_closes(place: Place) -> None:
    place.publisher(PLAN).close()


def test_what_is_published_is_all_there_and_nothing_else(place: Place) -> None:
    published = publish(place.publisher(PLAN), SHARDS, FILES)
    assert place.visible(published) == {**SHARDS, **FILES}


def test_a_shard_is_staged_with_its_size_and_hash(place: Place) -> None:
    publisher = place.publisher(PLAN)
    publisher.open()
    staged = stage(publisher, FIRST, SHARDS[FIRST])
    assert staged == StagedShard(FIRST, 5000, hashlib.sha256(SHARDS[FIRST]).hexdigest())
    publisher.close()


def test_readers_see_nothing_before_the_end(place: Place) -> None:
    publisher = place.publisher(PLAN)
    publisher.open()
    stage(publisher, FIRST, SHARDS[FIRST])
    assert place.visible(None) == {}
    publisher.close()
    assert place.visible(None) == {}


def test_a_second_run_of_the_plan_finds_what_is_staged(place: Place) -> None:
    first = place.publisher(PLAN)
    first.open()
    staged = stage(first, FIRST, SHARDS[FIRST])
    first.close()
    second = place.publisher(PLAN)
    assert second.open() == {FIRST: staged}
    published = second.publish([staged, stage(second, SECOND, SHARDS[SECOND])], FILES)
    second.close()
    assert place.visible(published) == {**SHARDS, **FILES}


def test_a_shard_may_be_staged_again(place: Place) -> None:
    publisher = place.publisher(PLAN)
    publisher.open()
    stage(publisher, ONE, b"first try")
    staged = stage(publisher, ONE, b"second")
    published = publisher.publish([staged], {"config.json": b"{}"})
    publisher.close()
    assert place.visible(published) == {ONE: b"second", "config.json": b"{}"}


def test_shards_of_another_plan_are_never_taken_up(place: Place) -> None:
    first = place.publisher(PLAN)
    first.open()
    stage(first, FIRST, SHARDS[FIRST])
    first.close()
    other = place.publisher(OTHER_PLAN)
    try:
        assert other.open() == {}
    except PublishError as error:
        assert "holds an unfinished merge of another plan" in str(error)  # noqa: PT017
    other.close()
