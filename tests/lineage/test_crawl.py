"""Ancestries crawled on the local Hub: what becomes of every kind of parent, and what the Hub is asked."""

from __future__ import annotations

import itertools
import time
from collections import Counter

import pytest
from huggingface_hub import constants

from hubmerge.errors import SourceError, TransferError
from hubmerge.lineage.crawl import CrawlLimits, crawl
from hubmerge.lineage.graph import Lineage, Relation, State
from hubmerge.localhub import LocalHub
from hubmerge.weights.hub_client import RetryPolicy
from tests.lineage import monarch
from tests.lineage.repos import Published, api_of, publish

_numbers = itertools.count()
IMPATIENT = RetryPolicy(attempts=2, first_wait_seconds=0.01)


@pytest.fixture
def owner() -> str:
    """A user with no repos, so that tests do not see each other's."""
    return f"kin-{next(_numbers)}"


def linear(repo_id: str, *models: str) -> Published:
    entries = "".join(f"- model: {model}\n" for model in models)
    return Published(repo_id, {"tags": ["merge"]}, recipe=f"merge_method: linear\nmodels:\n{entries}")


def edges(lineage: Lineage) -> list[tuple[str, str]]:
    return [(edge.child, edge.parent) for edge in lineage.edges]


def test_the_whole_ancestry_is_found_with_its_diamonds(alpha: Lineage) -> None:
    assert len(alpha.nodes) == 35
    assert [node.id for node in alpha.diamonds] == [
        monarch.MISTRAL,
        "mlabonne/OmniBeagle-7B",
        "mlabonne/BeagleSempra-7B",
        "shadowml/WestBeagle-7B",
    ]
    assert len(alpha.parents("mlabonne/Monarch-7B")) == 4
    assert alpha.nodes["EmbeddedLLM/Mistral-7B-Merge-14-v0"].method == "dare_ties"


def test_relations_commits_and_data_are_kept(alpha: Lineage) -> None:
    root = alpha.nodes[monarch.ROOT]
    assert (root.relation, root.method) == (Relation.FINETUNE, "dpo")
    assert root.datasets == ("argilla/OpenHermes2.5-dpo-binarized-alpha",)
    assert len(root.sha or "") == 40


def test_missing_and_gated_models_stay_in_the_graph(alpha: Lineage) -> None:
    missing, gated = alpha.nodes[monarch.MISSING], alpha.nodes[monarch.GATED]
    assert (missing.state, missing.problems) == (
        State.MISSING,
        ("there is no model mlabonne/NeuBeagle-7B on the Hub, or it is private and no token was given",),
    )
    assert (gated.state, gated.licence.license) == (State.GATED, "apache-2.0")
    assert gated.problems == ("janai-hq/trinity-v1 is gated, and a reader without an account has not been let in",)


def test_a_private_model_cannot_be_told_from_a_deleted_one_without_a_token(hub: LocalHub, owner: str) -> None:
    publish(
        hub,
        Published(f"{owner}/secret"),
        Published(f"{owner}/child", {"base_model": [f"{owner}/secret", f"{owner}/deleted"]}),
    )
    token = hub.create_token(owner)
    api_of(hub, owner).update_repo_settings(f"{owner}/secret", private=True)
    unseen = crawl(f"{owner}/child", token=False).nodes
    seen = crawl(f"{owner}/child", token=token).nodes
    assert [unseen[f"{owner}/{name}"].state for name in ("secret", "deleted")] == [State.MISSING, State.MISSING]
    assert [seen[f"{owner}/{name}"].state for name in ("secret", "deleted")] == [State.READ, State.MISSING]


def test_every_repo_is_asked_once_and_by_the_resolver(hub: LocalHub, owner: str) -> None:
    publish(
        hub,
        Published(f"{owner}/child", {"base_model": [f"{owner}/left", f"{owner}/right"]}),
        Published(f"{owner}/left", {"base_model": f"{owner}/top"}),
        Published(f"{owner}/right", {"base_model": f"{owner}/top"}),
        Published(f"{owner}/top", {"base_model": []}),
    )
    hub.requests.clear()
    crawl(f"{owner}/child", token=False)
    asked = Counter(record.path for record in hub.requests.matching(f"GET .*/{owner}/"))
    assert set(asked.values()) == {1}
    assert {path.split("/resolve/")[0] for path in asked if path.endswith("README.md")} == {
        f"/{owner}/{name}" for name in ("child", "left", "right", "top")
    }
    assert not hub.requests.matching("/api/")


def test_what_was_read_at_a_commit_is_not_asked_again(hub: LocalHub, owner: str) -> None:
    publish(hub, Published(f"{owner}/a"), Published(f"{owner}/b", {"base_model": f"{owner}/a"}))
    first = crawl(f"{owner}/b", token=False)
    hub.requests.clear()
    assert crawl(f"{owner}/b", token=False) == first
    assert [record.path for record in hub.requests] == [f"/{owner}/{name}/resolve/main/README.md" for name in "ba"]
    hub.requests.clear()
    pinned = crawl(f"{owner}/a@{first.nodes[f'{owner}/a'].sha}", token=False)
    assert (pinned.nodes[f"{owner}/a"], len(hub.requests)) == (first.nodes[f"{owner}/a"], 0)


def test_a_renamed_parent_is_found_under_its_new_name_once(hub: LocalHub, owner: str) -> None:
    publish(
        hub,
        Published(f"{owner}/old"),
        Published(f"{owner}/other", {"base_model": f"{owner}/new"}),
        Published(f"{owner}/child", {"base_model": [f"{owner}/old", f"{owner}/other"]}),
    )
    api_of(hub, owner).move_repo(f"{owner}/old", f"{owner}/new")
    found = crawl(f"{owner}/child", token=False)
    assert edges(found) == [
        (f"{owner}/child", f"{owner}/new"),
        (f"{owner}/child", f"{owner}/other"),
        (f"{owner}/other", f"{owner}/new"),
    ]
    assert [edge.name for edge in found.edges] == [f"{owner}/old", f"{owner}/other", f"{owner}/new"]


def test_circles_and_self_reference_end(hub: LocalHub, owner: str) -> None:
    publish(
        hub,
        Published(f"{owner}/a", {"base_model": [f"{owner}/a", f"{owner}/b"]}),
        Published(f"{owner}/b", {"base_model": f"{owner}/c"}),
        Published(f"{owner}/c", {"base_model": f"{owner}/a"}),
    )
    found = crawl(f"{owner}/a", token=False)
    assert len(found.nodes) == 3
    assert [(edge.child[-1], edge.parent[-1]) for edge in found.circles] == [("a", "a"), ("c", "a")]
    assert len(found.forward.edges) == 2


def test_the_same_path_on_two_machines_is_two_models(hub: LocalHub, owner: str) -> None:
    publish(hub, linear(f"{owner}/a", f"{owner}/b", "./merged"), linear(f"{owner}/b", "./merged", "C:\\models\\mine"))
    found = crawl(f"{owner}/a", token=False)
    local = [node for node in found.nodes.values() if node.state is State.LOCAL]
    assert [node.title for node in local] == ["merged", "merged", "mine"]
    assert len({node.id for node in local}) == 3


def test_a_parent_at_another_commit_is_another_model(hub: LocalHub, owner: str) -> None:
    publish(hub, Published(f"{owner}/base"))
    api = api_of(hub, owner)
    old = api.model_info(f"{owner}/base").sha
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=f"{owner}/base")
    publish(
        hub, linear(f"{owner}/a", f"{owner}/base", f"{owner}/b"), linear(f"{owner}/b", f"{owner}/base@{old}", "x/y")
    )
    found = crawl(f"{owner}/a", token=False)
    assert {node.id: node.sha for node in found.nodes.values()}[f"{owner}/base@{old[:7]}"] == old


@pytest.mark.parametrize("depth", [1, 2])
def test_depth_ends_the_crawl_and_says_what_lies_behind(published_monarch: str, depth: int) -> None:
    found = crawl(published_monarch, limits=CrawlLimits(depth=depth), token=False)
    assert [node.state for node in found.nodes.values()] == [State.READ] * (depth + 1) + [State.UNREAD] * (
        1 if depth == 1 else 4
    )


def test_the_number_of_questions_is_limited(published_monarch: str) -> None:
    found = crawl(published_monarch, limits=CrawlLimits(models=5), token=False)
    assert sum(node.state is not State.UNREAD for node in found.nodes.values()) == 5


def test_a_rate_limit_is_waited_for(hub: LocalHub, owner: str) -> None:
    publish(hub, Published(f"{owner}/a"))
    hub.faults.add(f"GET /{owner}/a/resolve", status=429, headers={"Retry-After": "1"}, count=1)
    began = time.monotonic()
    assert crawl(f"{owner}/a", token=False).root == f"{owner}/a"
    assert time.monotonic() - began >= 1


def test_a_parent_that_does_not_answer_is_said_to(hub: LocalHub, owner: str) -> None:
    publish(hub, Published(f"{owner}/a", {"base_model": f"{owner}/b"}), Published(f"{owner}/b"))
    hub.faults.add(f"GET /{owner}/b/resolve", status=503)
    node = crawl(f"{owner}/a", token=False, retry=IMPATIENT).nodes[f"{owner}/b"]
    assert (node.state, node.problems) == (State.UNREACHABLE, (f"the Hub answers HTTP 503 for {owner}/b",))


def test_progress_is_told(published_monarch: str) -> None:
    told: list[tuple[int, int, str]] = []
    crawl(published_monarch, token=False, progress=lambda *step: told.append(step))
    assert (len(told), told[-1][0]) == (34, 35)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody/none", "there is no model nobody/none on the Hub, or it is private and no token was given"),
        ("/home/me/model", "`/home/me/model` is not the name of a repo"),
        (monarch.GATED + "@v9", "janai-hq/trinity-v1 is gated, and a reader without an account has not been let in"),
    ],
)
def test_what_cannot_be_read_at_all_is_an_error(published_monarch: str, name: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        crawl(name, token=False)
    assert str(caught.value) == message


def test_a_bad_token_is_an_error_and_not_a_missing_model(published_monarch: str) -> None:
    with pytest.raises(SourceError, match=r"^the Hub does not accept the token$"):
        crawl(published_monarch, token="hf_wrong")


def test_offline_is_an_error(published_monarch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TransferError, match=r"^the Hub cannot be asked because offline mode is on$"):
        crawl(published_monarch, token=False)
