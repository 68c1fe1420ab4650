"""The ancestry in what a push publishes: lineage.json, the card, and that no trouble with it stops a merge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download

from hubmerge.localhub import LocalHub
from hubmerge.merge import ancestry
from hubmerge.merge.pipeline import MergeOptions, merge_and_push
from hubmerge.merge.progress import Silent
from tests.checkpoints import push_folder, write_llama
from tests.lineage.repos import Published, publish

RECIPE = """\
merge_method: linear
models:
- {model: ancestry/one, parameters: {weight: 0.5}}
- {model: ancestry/two, parameters: {weight: 0.5}}
"""


class Heard(Silent):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


@pytest.fixture(scope="module")
def token(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two parents: one a fine-tune of a model whose licence asks for more, the other of one that is gone."""
    token = hub.create_user("ancestry")
    publish(hub, Published("ancestry/zero", {"license": "cc-by-nc-4.0"}))
    for seed, (name, base) in enumerate((("one", "ancestry/zero"), ("two", "ancestry/gone"))):
        folder = write_llama(tmp_path_factory.mktemp(name), seed=seed, layers=1)
        card = f"---\nlicense: apache-2.0\nbase_model: {base}\n---\n"
        push_folder(token, f"ancestry/{name}", folder)
        add = CommitOperationAdd("README.md", card.encode())
        HfApi(token=token).create_commit(f"ancestry/{name}", [add], commit_message="card")
    return token


def push(token: str, repo_id: str, *, lineage: bool = True) -> Heard:
    progress = Heard()
    options = MergeOptions(source_token=False, lineage=lineage)
    merge_and_push(RECIPE, repo_id, target_token=token, options=options, progress=progress)
    return progress


def text_of(repo_id: str, path: str, token: str) -> str:
    return Path(hf_hub_download(repo_id, path, token=token)).read_text()


def test_a_push_publishes_the_graph_and_its_warnings(token: str) -> None:
    push(token, "ancestry/merged")
    record = json.loads(text_of("ancestry/merged", "lineage.json", token))
    assert [model["id"] for model in record["models"]] == [
        "ancestry/merged",
        "ancestry/one",
        "ancestry/two",
        "ancestry/zero",
        "ancestry/gone",
    ]
    commits = {name: HfApi(token=token).model_info(f"ancestry/{name}").sha for name in ("one", "two")}
    assert [model["sha"] for model in record["models"][1:3]] == [commits["one"], commits["two"]]
    card = text_of("ancestry/merged", "README.md", token)
    assert 'n3["ancestry/zero<br/>no known parents · cc-by-nc-4.0"]' in card
    assert "4 ancestors, as their public pages tell it; `lineage.json` has the whole graph." in card
    assert "- ancestry/gone has been deleted or is private, and ancestry/two was made from it." in card


def test_a_push_can_do_without(hub: LocalHub, token: str) -> None:
    hub.requests.clear()
    push(token, "ancestry/plain", lineage=False)
    assert "lineage.json" not in HfApi(token=token).list_repo_files("ancestry/plain")
    assert not hub.requests.matching("/ancestry/zero/")


def test_a_crawl_that_fails_is_a_note(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(ancestry, "crawl_parents", fail)
    heard = push(token, "ancestry/failed")
    sentence = "The ancestry cannot be read, so the model card shows the parents alone: no memory left"
    assert sentence in heard.sentences
    assert "lineage.json" not in HfApi(token=token).list_repo_files("ancestry/failed")


def test_a_crawl_that_hangs_does_not_hold_a_merge(hub: LocalHub, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ancestry, "PATIENCE_SECONDS", 0.0)
    hub.faults.add("GET /ancestry/(zero|gone)/resolve/", delay_seconds=1.0)
    heard = push(token, "ancestry/hurried")
    assert "The ancestry takes too long to read; the model card shows the parents alone" in heard.sentences
