"""The ancestry of a merge: what it does to the licence, what is published of it, and that no trouble is hidden."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download

from hubmerge.cli import main
from hubmerge.errors import LicenceError
from hubmerge.lineage import crawl
from hubmerge.localhub import LocalHub
from hubmerge.merge import ancestry
from hubmerge.merge.licensing import LicenceChoice
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_and_push, merge_to_folder, open_merge, planned_licence
from tests.checkpoints import push_folder, write_llama
from tests.lineage.graphs import graph, node
from tests.lineage.repos import Published, publish
from tests.merge.merging import Heard, metadata_of

_numbers = itertools.count()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("kin") / "model", seed=1, layers=1)


class Family:
    """An owner with models, some of which have weights."""

    def __init__(self, hub: LocalHub, weights: Path) -> None:
        self.name = f"family-{next(_numbers)}"
        self.token = hub.create_user(self.name)
        self._hub, self._weights = hub, weights

    def model(self, name: str, card: dict[str, object]) -> str:
        """Publishes a model with weights and a card, and returns its id."""
        repo = f"{self.name}/{name}"
        push_folder(self.token, repo, self._weights)
        self.rewrite(name, card)
        return repo

    def rewrite(self, name: str, card: dict[str, object]) -> None:
        text = f"---\n{yaml.safe_dump(card)}---\n"
        add = CommitOperationAdd("README.md", text.encode())
        HfApi(token=self.token).create_commit(f"{self.name}/{name}", [add], commit_message="card")

    def ancestor(self, name: str, **card: object) -> str:
        """Publishes a card alone, and returns its id."""
        publish(self._hub, Published(f"{self.name}/{name}", card))
        return f"{self.name}/{name}"

    def push(self, *repos: str, **options: object) -> tuple[str, Heard]:
        target, heard = f"{self.name}/merged-{next(_numbers)}", Heard()
        chosen = MergeOptions(source_token=False, **options)
        merge_and_push(linear(*repos), target, target_token=self.token, options=chosen, progress=heard)
        return target, heard

    def text(self, repo: str, path: str) -> str:
        return Path(hf_hub_download(repo, path, token=self.token)).read_text()


def linear(*models: object) -> dict[str, object]:
    entries = [{"model": str(model), "parameters": {"weight": 1}} for model in models]
    return {"merge_method": "linear", "models": entries}


@pytest.fixture
def family(hub: LocalHub, weights: Path) -> Family:
    return Family(hub, weights)


def test_a_fine_tunes_licence_does_not_undo_its_ancestors(family: Family) -> None:
    llama = family.ancestor("Llama-3.1-8B", license="llama3.1")
    tuned = family.model("tuned", {"license": "apache-2.0", "base_model": llama, "tags": ["unsloth"]})
    other = family.model("other", {"license": "mit"})
    target, heard = family.push(tuned, other)
    card = family.text(target, "README.md")
    assert yaml.safe_load(card.split("---")[1])["license"] == "llama3.1"
    assert "> Built with Llama.\n" in card
    assert f"- {llama} declares llama3.1.\n" in card
    assert heard.sentences == ['! The Llama 3.1 licence asks that the name of the model begin with "Llama".']


def test_a_push_publishes_the_graph_and_its_warnings(family: Family) -> None:
    zero = family.ancestor("zero", license="cc-by-nc-4.0")
    one = family.model("one", {"license": "apache-2.0", "base_model": zero})
    two = family.model("two", {"license": "apache-2.0"})
    target, _ = family.push(one, two)
    record = json.loads(family.text(target, "lineage.json"))
    assert [model["id"] for model in record["models"]] == [target, one, two, zero]
    commits = [HfApi(token=family.token).model_info(repo).sha for repo in (one, two, zero)]
    assert [model["sha"] for model in record["models"][1:]] == commits
    assert record["models"][0]["license"] == "cc-by-nc-4.0"
    card = family.text(target, "README.md")
    assert f'n3["{zero}<br/>no known parents · cc-by-nc-4.0"]' in card
    assert "3 ancestors, as their public pages tell it; `lineage.json` has the whole graph." in card
    sentence = f"{one} declares apache-2.0, and {zero}, from which it descends, cc-by-nc-4.0, which asks for more."
    assert f"- {sentence}" in card


def test_a_missing_ancestor_stops_a_push_before_a_weight_moves(hub: LocalHub, family: Family) -> None:
    one = family.model("one", {"license": "apache-2.0", "base_model": f"{family.name}/gone"})
    hub.requests.clear()
    with pytest.raises(LicenceError) as caught:
        family.push(one)
    assert f"  - Nothing is known of {family.name}/gone: deleted or private.\n" in str(caught.value)
    assert hub.requests.matching(f"POST /api/.*{family.name}") == []
    assert len(hub.requests.matching("GET /cdn/")) <= 1


def test_a_person_may_decide_about_a_missing_ancestor(family: Family) -> None:
    one = family.model("one", {"license": "apache-2.0", "base_model": f"{family.name}/gone"})
    target, _ = family.push(one, licence=LicenceChoice("apache-2.0", "It was mine, and under apache-2.0."))
    card = family.text(target, "README.md")
    assert "- The publisher chose this licence: It was mine, and under apache-2.0.\n" in card
    assert f"- {family.name}/gone has been deleted or is private, and {one} was made from it." in card


def test_a_push_can_do_without_and_says_so(hub: LocalHub, family: Family) -> None:
    zero = family.ancestor("zero", license="cc-by-nc-4.0")
    one = family.model("one", {"license": "apache-2.0", "base_model": zero})
    hub.requests.clear()
    target, _ = family.push(one, lineage=False)
    assert "lineage.json" not in HfApi(token=family.token).list_repo_files(target)
    assert not hub.requests.matching(f"/{zero}/")
    assert "- Only the parents count here: what lies behind them was not looked at" in family.text(target, "README.md")


def test_a_crawl_that_fails_is_named_and_nothing_is_guessed(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(crawl, "crawl_parents", fail)
    with pytest.raises(LicenceError, match=r"Nothing is known of the ancestors of the parents: no memory left\."):
        family.push(family.model("one", {"license": "mit"}))


def test_a_crawl_that_takes_too_long_is_cut_short_and_said_to(
    hub: LocalHub, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero = family.ancestor("zero", license="mit")
    one = family.model("one", {"license": "mit", "base_model": zero})
    monkeypatch.setattr(crawl, "BUDGET_SECONDS", 0.5)
    hub.faults.add(f"GET /{zero}/resolve/", status=429, headers={"Retry-After": "60"})
    with pytest.raises(LicenceError) as caught:
        family.push(one)
    reason = "not read, because the ancestry is too large or the time was up"
    assert f"  - Nothing is known of {zero}: {reason}.\n" in str(caught.value)


def test_a_licence_is_read_at_the_pinned_commit(family: Family) -> None:
    one = family.model("one", {"license": "cc-by-nc-4.0"})
    pinned = HfApi(token=family.token).model_info(one).sha
    family.rewrite("one", {"license": "mit"})
    with open_merge(linear(f"{one}@{pinned}"), MergeOptions(source_token=False)) as merge:
        assert planned_licence(merge).license == "cc-by-nc-4.0"


def test_a_folder_of_this_machine_passes_on_what_it_descends_from(
    family: Family, weights: Path, tmp_path: Path
) -> None:
    zero = family.ancestor("zero", license="cc-by-nc-4.0")
    mine = write_llama(tmp_path / "mine", seed=2, layers=1)
    (mine / "README.md").write_text(f"---\nlicense: mit\nbase_model: {zero}\n---\n")
    merge_to_folder(linear(mine, weights), tmp_path / "out", options=MergeOptions(source_token=False))
    metadata = metadata_of(tmp_path / "out")
    assert metadata["license"] == "cc-by-nc-4.0"
    assert "base_model" not in metadata
    assert str(tmp_path) not in (tmp_path / "out" / "lineage.json").read_text()


def test_a_licence_file_of_a_person_stays_and_one_of_ours_follows_the_merge(family: Family) -> None:
    gemma = family.model("gemma", {"license": "gemma"})
    llama = family.model("llama", {"license": "llama3.1"})
    composite = {"licence": LicenceChoice("other", "both hold"), "source_token": False}
    target = f"{family.name}/Llama-Gemma"

    def push(*repos: str, **options: object) -> str:
        merge_and_push(linear(*repos), target, target_token=family.token, options=MergeOptions(**options))
        return family.text(target, "LICENSE.md")

    assert "# llama3.1-and-gemma\n" in push(llama, gemma, **composite)
    assert "| gemma |" not in push(llama, source_token=False)
    add = CommitOperationAdd("LICENSE.md", b"mine")
    HfApi(token=family.token).create_commit(target, [add], commit_message="mine")
    assert push(gemma, llama, **composite) == "mine"


def test_plan_and_push_show_the_licence_with_its_reasons(family: Family, tmp_path: Path) -> None:
    one = family.model("one", {"license": "apache-2.0", "base_model": f"{family.name}/gone"})
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(yaml.safe_dump(linear(one)))
    reason = f"Nothing is known of {family.name}/gone: deleted or private."
    shown = CliRunner().invoke(main, ["plan", str(recipe)])
    assert "licence: none can be derived; publishing needs --license and --license-reason\n" in shown.stdout
    assert f"  - {reason}\n" in shown.stdout
    summary = json.loads(CliRunner().invoke(main, ["plan", str(recipe), "--json"]).stdout)
    assert (summary["license"], summary["license_outcome"]) == (None, "consent")
    assert reason in summary["license_reasons"]
    pushed = CliRunner().invoke(main, ["merge-and-push", str(recipe), f"{family.name}/x"])
    assert (pushed.exit_code, pushed.stdout) == (3, "")
    assert pushed.stderr.splitlines()[0] == "Error: no licence can be derived for this merge:"
    assert pushed.stderr.splitlines()[-1].endswith('with --license ID --license-reason "..."')


def test_what_a_parents_card_warns_of_is_told_though_nothing_lies_behind() -> None:
    warning = node("x/y", contamination=("Trained on contaminated data.",))
    told = ancestry.ancestry_facts(graph("a/merge < x/y z/w", warning))
    assert told is not None
    assert told.warnings == ("x/y speaks of contaminated data: “Trained on contaminated data.”",)
    assert ancestry.ancestry_facts(graph("a/merge < x/y z/w", node("x/y", licence=None))) is None
