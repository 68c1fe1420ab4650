"""Cards for merges that other tools made."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import CardError, PublishError, SourceError, TargetMovedError
from hubmerge.existing.renewal import CardOptions, Renewal, push_card, renew_card, write_card
from hubmerge.lineage.published import CONFIG_FILE
from hubmerge.localhub import LocalHub
from hubmerge.merge.licensing import LicenceChoice
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_and_push
from hubmerge.weights.front_matter import read_metadata, split_card
from tests.checkpoints import write_llama
from tests.existing.merges import AUTHORS_CARD, merged_folder, new_parents, published, slerp, text_of
from tests.merge.recipes import whole


def renewed(name: str | Path, hub: LocalHub, **options: object) -> Renewal:
    return renew_card(str(name), CardOptions(source_token=hub.token, **options))  # type: ignore[arg-type]


def metadata_of(renewal: Renewal) -> dict[str, object]:
    return read_metadata(split_card(renewal.card)[0])


def copied(folder: Path, target: Path, *, without: str = "", **texts: str) -> Path:
    """Returns `target`, a copy of a merge without one file and with the card or the recipe replaced."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(without))
    for name, text in texts.items():
        (target / {"card": "README.md", "recipe": CONFIG_FILE}[name]).write_text(text)
    return target


def test_the_front_matter_is_mended_and_what_people_added_stays(hub: LocalHub, merged: Path, parents: tuple) -> None:
    assert metadata_of(renewed(merged, hub)) == {
        "base_model": list(parents),
        "base_model_relation": "merge",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["merge", "mergekit", "hubmerge", "mistral"],
        "license": "cc-by-nc-4.0",
        "datasets": ["argilla/dpo"],
        "thumbnail": "x.png",
    }


def test_a_persons_title_and_opening_stay_first_and_the_rest_last(hub: LocalHub, merged: Path) -> None:
    body = split_card(renewed(merged, hub).card)[1]
    assert body.startswith("\n# My merge\n\nIt rhymes.\n\n<!-- hubmerge:summary begin -->\n")
    assert body.endswith("<!-- hubmerge:provenance end -->\n\n## Evaluation\n\nBetter than its parents.\n")
    assert body.count("\n# ") == 1


def test_parents_are_at_the_commits_of_today_and_the_card_says_so(
    hub: LocalHub, api: HfApi, merged: Path, parents: tuple
) -> None:
    renewal = renewed(merged, hub)
    assert [parent.sha for parent in renewal.facts.parents] == [api.model_info(parent).sha for parent in parents]
    assert "Commits as they were seen when this card was written; which ones were merged is not known." in renewal.card
    assert "> Merged with another tool." in renewal.card
    assert "hubmerge.lock.json" not in renewal.card


def test_a_folders_weights_are_hashed_and_counted(hub: LocalHub, merged: Path) -> None:
    renewal = renewed(merged, hub)
    sha256 = hashlib.sha256((merged / "model.safetensors").read_bytes()).hexdigest()
    assert f"\n{sha256}  model.safetensors\n" in renewal.card
    assert (renewal.facts.parameter_count, renewal.facts.context_length) == (6736, 128)


def test_the_tokenizer_is_recognised_by_its_bytes(hub: LocalHub, merged: Path, parents: tuple) -> None:
    assert renewed(merged, hub).facts.tokenizer_from == parents[0]
    assert renewed(published(hub, merged), hub).facts.tokenizer_from == parents[0]


def test_writing_into_the_folder_leaves_nothing_to_write(hub: LocalHub, merged: Path, tmp_path: Path) -> None:
    folder = copied(merged, tmp_path / "my-merge")
    assert write_card(renewed(folder, hub)) == folder / "README.md"
    assert json.loads((folder / "lineage.json").read_text())["root"] == "my-merge"
    again = renewed(folder, hub)
    assert (again.files, again.diff) == ({}, "")


def test_one_commit_pushes_the_card_and_what_was_missing(
    hub: LocalHub, api: HfApi, merged: Path, tmp_path: Path
) -> None:
    recipe = (merged / CONFIG_FILE).read_text()
    card = f"{AUTHORS_CARD}\n```yaml\n{recipe}```\n"
    repo = published(hub, copied(merged, tmp_path / "no-recipe", without=CONFIG_FILE, card=card))
    before = len(api.list_repo_commits(repo))
    renewal = renewed(repo, hub)
    assert set(renewal.files) == {"README.md", CONFIG_FILE, "lineage.json"}
    pushed = push_card(renewal, token=hub.token)
    assert (pushed.url, pushed.commit) == (f"{hub.endpoint}/{repo}", api.model_info(repo).sha)
    assert len(api.list_repo_commits(repo)) == before + 1
    assert (text_of(api, repo), text_of(api, repo, CONFIG_FILE)) == (renewal.card, recipe)
    assert renewed(repo, hub).files == {}


def test_anybody_may_propose_a_card(hub: LocalHub, api: HfApi, merged: Path) -> None:
    repo = published(hub, merged)
    stranger = hub.create_user("card-proposer")
    renewal = renewed(repo, hub)
    with pytest.raises(PublishError, match="the token may not write to"):
        push_card(renewal, token=stranger)
    proposed = push_card(renewal, create_pr=True, commit_message="A better card", token=stranger)
    assert proposed.url == f"{hub.endpoint}/{repo}/discussions/1"
    assert api.get_discussion_details(repo, 1).title == "A better card"
    assert text_of(api, repo) == AUTHORS_CARD
    api.merge_pull_request(repo, 1)
    assert text_of(api, repo) == renewal.card


def test_a_repo_that_moved_is_left_alone(hub: LocalHub, api: HfApi, merged: Path) -> None:
    repo = published(hub, merged)
    renewal = renewed(repo, hub)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo)
    with pytest.raises(TargetMovedError) as caught:
        push_card(renewal, token=hub.token)
    assert str(caught.value) == f"{repo} got another commit since it was read; nothing was changed"


def test_a_parent_that_is_gone_is_named(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    parents = new_parents(hub, tmp_path, "apache-2.0", "cc-by-nc-4.0")
    folder = merged_folder(tmp_path / "merged", slerp(*parents))
    api.delete_repo(parents[1])
    renewal = renewed(folder, hub)
    reason = f"there is no model {parents[1]} on the Hub, or it is private and the token may not read it"
    assert f"\n- {parents[1]}: {reason}.\n" in renewal.card
    assert f"| {parents[1]} | – | layers 0-2 | not known |" in renewal.card
    assert (metadata_of(renewal)["base_model"], metadata_of(renewal)["license"]) == (list(parents), "mit")
    assert "Some parents cannot be read any more: only someone who has them can run it." in renewal.card


def test_a_gated_parent_is_marked_though_it_cannot_be_read(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    parents = new_parents(hub, tmp_path, "apache-2.0", "cc-by-nc-4.0")
    folder = merged_folder(tmp_path / "merged", slerp(*parents))
    api.update_repo_settings(parents[1], gated="manual")
    gated = renew_card(str(folder), CardOptions(source_token=False)).facts.parents[1]
    assert (gated.gated, gated.license, gated.missing) == (True, "cc-by-nc-4.0", None)


def test_folders_of_a_strangers_machine_are_not_looked_for(hub: LocalHub, merged: Path, tmp_path: Path) -> None:
    here = write_llama(tmp_path / "here", seed=9)
    (here / "README.md").write_text("---\nlicense: mit\n---\n")
    recipe = (merged / CONFIG_FILE).read_text()
    second = recipe.split("- model: ")[2].split("\n")[0]
    folder = copied(merged, tmp_path / "merged", recipe=recipe.replace(second, str(here)))
    assert renewed(folder, hub).facts.parents[1].license == "mit"
    on_hub = renewed(published(hub, folder), hub)
    assert on_hub.facts.parents[1].license is None
    assert "| local folder here | – | layers 0-2 | not known |" in on_hub.card
    assert "- Nothing is known of here: a folder of another machine.\n" in on_hub.card


def test_a_recipe_that_cannot_be_made_is_read_for_its_names(
    hub: LocalHub, merged: Path, parents: tuple, tmp_path: Path
) -> None:
    recipe = f"merge_method: alchemy\nbase_model: {parents[0]}\nmodels:\n  - model: {parents[1]}\n"
    renewal = renewed(copied(merged, tmp_path / "alchemy", recipe=recipe), hub)
    assert {(parent.repo_id, parent.is_base) for parent in renewal.facts.parents} == {
        (parents[0], True),
        (parents[1], False),
    }
    assert "**alchemy merge**" in renewal.card
    assert "## Make it again" not in renewal.card


def test_a_repo_without_safetensors_still_gets_a_card(hub: LocalHub, merged: Path, tmp_path: Path) -> None:
    card = renewed(copied(merged, tmp_path / "bare", without="*.safetensors"), hub).card
    assert "- There are no safetensors files, so nothing is said of the weights.\n" in card
    assert "Checksums" not in card


def test_a_repo_without_a_recipe_is_refused(hub: LocalHub, merged: Path, tmp_path: Path) -> None:
    folder = copied(merged, tmp_path / "silent", without=CONFIG_FILE)
    with pytest.raises(SourceError) as caught:
        renewed(folder, hub)
    message = f"{folder} publishes no recipe, neither as mergekit_config.yml nor in its README.md"
    assert str(caught.value) == message


def test_a_chosen_licence_goes_before_all(hub: LocalHub, merged: Path) -> None:
    renewal = renewed(merged, hub, licence=LicenceChoice("cc-by-4.0", "All authors agreed."))
    assert metadata_of(renewal)["license"] == "cc-by-4.0"
    assert "All authors agreed." in renewal.card


def ancestors(hub: LocalHub, api: HfApi, folder: Path, parent: str, licence: str) -> str:
    """Gives a published parent a parent under this licence, and returns its id."""
    (grandparent,) = new_parents(hub, folder, licence)
    card = f"---\nlicense: apache-2.0\nbase_model: {grandparent}\n---\n".encode()
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=parent)
    return grandparent


def test_the_licence_is_that_of_all_ancestors(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    parents = new_parents(hub, tmp_path, "apache-2.0", "apache-2.0")
    grandparent = ancestors(hub, api, tmp_path / "above", parents[0], "cc-by-nc-4.0")
    card = renewed(merged_folder(tmp_path / "merged", slerp(*parents)), hub)
    assert metadata_of(card)["license"] == "cc-by-nc-4.0"
    assert f"\n- {grandparent} declares cc-by-nc-4.0.\n" in card.card
    assert metadata_of(renewed(tmp_path / "merged", hub, lineage=False))["license"] == "apache-2.0"


def test_a_folders_own_parents_count(hub: LocalHub, tmp_path: Path) -> None:
    parents = new_parents(hub, tmp_path, "apache-2.0", "cc-by-nc-4.0")
    here = write_llama(tmp_path / "here", seed=9)
    (here / "README.md").write_text(f"---\nlicense: mit\nbase_model: {parents[1]}\n---\n")
    folder = merged_folder(tmp_path / "merged", slerp(parents[0], here))
    assert metadata_of(renewed(folder, hub))["license"] == "cc-by-nc-4.0"


def test_a_licence_that_asks_for_more_is_its_authors_to_choose(hub: LocalHub, merged: Path, tmp_path: Path) -> None:
    card = "---\nlicense: cc-by-nc-sa-4.0\n---\n# Mine\n"
    folder = copied(merged, tmp_path / "stricter", card=card)
    renewal = renewed(folder, hub)
    assert metadata_of(renewal)["license"] == "cc-by-nc-sa-4.0"
    assert "\n- the card of this merge declares cc-by-nc-sa-4.0.\n" in renewal.card
    write_card(renewal)
    assert renewed(folder, hub).files == {}


def test_a_licence_that_was_chosen_stays_with_its_reason(hub: LocalHub, tmp_path: Path) -> None:
    parents = new_parents(hub, tmp_path, "llama3.1", "gemma")
    repo = f"{parents[0]}-chosen"
    options = MergeOptions(source_token=hub.token, licence=LicenceChoice("other", "Both are kept."))
    merge_and_push(slerp(*parents), repo, options=options, target_token=hub.token)
    renewal = renewed(repo, hub)
    assert renewal.facts.licence.override_reason == "Both are kept."
    assert (renewal.diff, renewal.files) == ("", {})


def test_a_licence_of_several_stands_in_a_file(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    parents = new_parents(hub, tmp_path, "llama3.1", "gemma")
    folder = merged_folder(tmp_path / "merged", slerp(*parents), card=None)
    undecided = renewed(folder, hub)
    assert ("LICENSE.md" in undecided.files, "license" in metadata_of(undecided)) == (False, False)
    chosen = renewed(folder, hub, licence=LicenceChoice("other", "Both are kept."))
    assert metadata_of(chosen)["license_link"] == "LICENSE.md"
    assert f"{parents[1]}](https://huggingface.co/{parents[1]}/" in chosen.files["LICENSE.md"].decode()
    assert "new file LICENSE.md\n" in chosen.diff
    write_card(chosen)
    assert renewed(folder, hub).files.keys() <= {"README.md", "LICENSE.md"}
    (folder / "LICENSE.md").write_text("Mine.\n")
    assert "LICENSE.md" not in renewed(folder, hub).files


def test_front_matter_that_cannot_be_kept_is_an_error(hub: LocalHub, merged: Path, tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"the front matter of the target's README\.md cannot be kept"):
        renewed(copied(merged, tmp_path / "broken", card="---\n- a\n---\n# Mine\n"), hub)


def test_what_hubmerge_made_keeps_its_commits_seed_and_fingerprint(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    parents = new_parents(hub, tmp_path, "apache-2.0", "cc-by-nc-4.0")
    recipe = whole("linear", *[(parent, {"weight": 1}) for parent in parents])
    repo = f"{parents[0]}-merged"
    options = MergeOptions(source_token=hub.token, seed=7)
    merge_and_push(recipe, repo, options=options, target_token=hub.token)
    merged_from = api.model_info(parents[0]).sha
    api.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo="README.md", repo_id=parents[0])
    renewal = renewed(repo, hub)
    assert (renewal.facts.made_elsewhere, renewal.facts.parents[0].sha) == (False, merged_from)
    assert renewal.facts.command == f"hubmerge merge-and-push mergekit_config.yml {repo} --seed 7"
    assert renewal.diff == ""


def test_a_lock_file_of_other_weights_counts_for_nothing(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    parents = new_parents(hub, tmp_path, "apache-2.0", "apache-2.0")
    repo = f"{parents[0]}-changed"
    merge_and_push(slerp(*parents), repo, options=MergeOptions(source_token=hub.token), target_token=hub.token)
    weights = write_llama(tmp_path / "other", seed=8) / "model.safetensors"
    api.upload_file(path_or_fileobj=weights, path_in_repo="model.safetensors", repo_id=repo)
    renewal = renewed(repo, hub)
    assert renewal.facts.made_elsewhere
    assert "- hubmerge.lock.json tells of other weights than those that are here.\n" in renewal.card
