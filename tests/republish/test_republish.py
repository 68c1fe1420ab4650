"""`hubmerge republish`: what is made, what is kept, what the card says, and what stops it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hubmerge.cli import main
from hubmerge.errors import TargetMovedError
from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.republish.run import RepublishOptions, republish
from hubmerge.weights.shards import hash_file
from tests.checkpoints import push_folder
from tests.end_to_end.merges import Recorder
from tests.republish.merges import OPTIONS, Published, adapter_weights, card, linear, publish_merge

STAGED = "POST .*/commit/hubmerge"


def made_on_disk(merge: Published, folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each weight file of the same merge, made of the parents' heads from nothing."""
    merge_to_folder(merge.text("mergekit_config.yml"), folder / "again", options=OPTIONS)
    return {path.name: hash_file(path) for path in (folder / "again").glob("*.safetensors")}


def section(text: str, name: str) -> str:
    """Returns what stands between the markers of a section of a card."""
    return text.partition(f"<!-- hubmerge:{name} begin -->")[2].partition(f"<!-- hubmerge:{name} end -->")[0]


def test_only_files_that_change_are_made_and_the_card_lists_the_parents(merge: Published, tmp_path: Path) -> None:
    before, head, old = merge.shards(), merge.head(), merge.api.model_info(merge.parents[0]).sha
    merge.write("README.md", merge.text("README.md") + "\n## My words\n\nIt rhymes.\n")
    edited = merge.head()
    new = merge.change_weights(0)
    merge.hub.requests.clear()
    result = merge.run("republish", "--if-changed", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    after = merge.shards()
    assert after == made_on_disk(merge, tmp_path)
    changed = sorted(name for name in after if after[name] != before[name])
    assert 0 < len(changed) < len(after)
    assert (told["state"], told["shards_made"]) == ("published", changed)
    assert told["shards_kept"] == sorted(set(after) - set(changed))
    assert len(merge.hub.requests.matching(STAGED)) == len(changed)
    assert (told["new_commit"], told["commit"]) == (merge.head(), edited)
    text = merge.text("README.md")
    assert "## My words\n\nIt rhymes." in text
    hub = "https://huggingface.co"
    changes = section(text, "changes")
    assert changes.split("\n", 3)[2:] == [
        "## What changed",
        f"\nSince [`{edited[:7]}`]({hub}/{merge.repo}/commit/{edited}) these parents are different:\n\n"
        "| Model | Then | Now | What is different |\n|---|---|---|---|\n"
        f"| {merge.parents[0]} | [`{old[:7]}`]({hub}/{merge.parents[0]}/commit/{old}) "
        f"| [`{new[:7]}`]({hub}/{merge.parents[0]}/commit/{new}) | weights |\n\n",
    ]
    assert merge.text("mergekit_config.yml") == linear(*merge.parents)
    assert merge.api.list_repo_commits(merge.repo)[0].title == f"Merge again: weights of {merge.parents[0]}"
    assert head != edited
    assert merge.run("status", "-q").exit_code == 0


def test_files_that_are_kept_are_not_read_of_the_parents(merge: Published) -> None:
    merge.change_weights(0)
    planned = json.loads(merge.run("republish", "--dry-run", "--json").stdout)
    recorder = Recorder()
    options = RepublishOptions(target_token=merge.hub.token)
    ended = republish(merge.repo, options, progress=recorder)
    assert list(ended.work.kept) == recorder.skipped == planned["shards_kept"]
    assert sum(size for stage, size in recorder.events if stage.value == "read") == planned["read_bytes"]
    assert 0 < planned["read_bytes"] < recorder.plan.read_bytes


def test_of_a_parent_in_one_file_only_bytes_that_differ_are_sent(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.republish.merges.PARENT_SHARD", "1GB")
    merge = publish_merge(hub, tmp_path)
    merge.change_weights(0, tensors=["model.layers.0.mlp.down_proj.weight"])
    before = merge.shards()
    merge.hub.requests.clear()
    told = json.loads(merge.run("republish", "--json").stdout)
    after = merge.shards()
    assert told["shards_kept"] == []
    assert len(told["shards_made"]) > len([name for name in after if after[name] != before[name]]) == 1
    assert len(merge.hub.requests.matching("POST /cas/v1/xorbs/|PUT /cdn/uploads/")) == 1


def test_what_was_found_in_kept_files_stays_in_the_diagnostics(hub: LocalHub, tmp_path: Path) -> None:
    merge = publish_merge(hub, tmp_path, options=replace(OPTIONS, diagnostics=True))
    before = json.loads(merge.text("diagnostics.json"))
    merge.change_weights(0)
    assert merge.run("republish").exit_code == 0
    after = json.loads(merge.text("diagnostics.json"))
    assert after["measured_tensors"] == before["measured_tensors"] == before["merged_tensors"]
    assert set(after["files"]) == set(merge.shards().values())
    assert 0 < len(before["files"].keys() & after["files"].keys()) < len(after["files"])


def test_a_dry_run_says_what_would_be_done_and_does_nothing(merge: Published) -> None:
    merge.change_weights(0)
    head = merge.head()
    result = merge.run("republish", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("reads ")
    assert " · keeps " in result.stdout.splitlines()[-1]
    assert (merge.head(), [branch.name for branch in merge.api.list_repo_refs(merge.repo).branches]) == (head, ["main"])


def test_documentation_is_no_reason(merge: Published) -> None:
    merge.write("README.md", card("apache-2.0") + "# News\n", repo=merge.parents[0])
    head = merge.head()
    result = merge.run("republish", "--if-changed")
    sentence = f"{merge.repo} is up to date; different all the same: docs of {merge.parents[0]}\n"
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", sentence)
    assert merge.head() == head
    assert json.loads(merge.run("republish", "--if-changed", "--json").stdout)["state"] == "up_to_date"


@pytest.mark.parametrize("diagnostics", [False, True])
def test_without_a_reason_nothing_is_made_again(hub: LocalHub, tmp_path: Path, *, diagnostics: bool) -> None:
    merge = publish_merge(hub, tmp_path, options=replace(OPTIONS, diagnostics=diagnostics, lineage=True))
    before, head = merge.shards(), merge.head()
    result = merge.run("republish", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["shards_made"], told["state"]) == (0, [], "up_to_date")
    assert (merge.shards(), merge.head()) == (before, head)


def test_quiet_says_nothing_where_there_is_nothing_to_do(untouched: Published) -> None:
    result = untouched.run("republish", "--if-changed", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_main_may_be_named_and_no_other_branch(untouched: Published) -> None:
    words = ["republish", f"{untouched.repo}@main", "--if-changed", "--source-token", untouched.hub.token]
    assert CliRunner().invoke(main, words).exit_code == 0
    words[1] = f"{untouched.repo}@{untouched.head()}"
    result = CliRunner().invoke(main, words)
    sentence = f"Error: only the main branch is republished, not {untouched.head()}\nHint: Leave out `@`.\n"
    assert (result.exit_code, result.stderr) == (1, sentence)


def test_a_new_tokenizer_keeps_the_weights(merge: Published) -> None:
    config = json.loads((merge.folders[0] / "tokenizer_config.json").read_text())
    merge.write("tokenizer_config.json", json.dumps(config | {"padding_side": "left"}), repo=merge.parents[0])
    before = merge.shards()
    result = merge.run("republish", "--if-changed", "--json")
    assert (result.exit_code, json.loads(result.stdout)["shards_made"]) == (0, [])
    assert merge.shards() == before
    assert json.loads(merge.text("tokenizer_config.json"))["padding_side"] == "left"
    assert "| tokenizer |" in section(merge.text("README.md"), "changes")


def test_another_licence_stops_it_until_somebody_decides(merge: Published) -> None:
    merge.write("README.md", card("cc-by-nc-4.0"), repo=merge.parents[0])
    head = merge.head()
    result = merge.run("republish", "--if-changed")
    assert (result.exit_code, merge.head()) == (3, head)
    assert result.stderr.splitlines() == [
        f"Error: {merge.repo} is not republished before a person has looked at its parents:",
        f"  - {merge.parents[0]}: {merge.parents[0]} declares cc-by-nc-4.0 now, and declared apache-2.0",
        "Hint: If you may publish it all the same, choose its licence and say why. Run the same command with "
        '--license ID --license-reason "..."',
    ]
    decided = merge.run("republish", "--license", "cc-by-nc-4.0", "--license-reason", "It is what they ask.")
    assert decided.exit_code == 0, decided.output
    assert "license: cc-by-nc-4.0" in merge.text("README.md")


def test_a_choice_stands_as_long_as_nothing_behind_it_changes(hub: LocalHub, tmp_path: Path) -> None:
    merge = publish_merge(hub, tmp_path, options=replace(OPTIONS, lineage=True))
    merge.write("README.md", card("cc-by-nc-nd-4.0"), repo=merge.parents[0])
    assert merge.run("republish", "--license", "mit", "--license-reason", "They let me.").exit_code == 0
    merge.change_weights(0)
    again = merge.run("republish")
    assert again.exit_code == 0, again.output
    assert "license: mit" in merge.text("README.md")
    assert "They let me." in merge.text("README.md")


@pytest.mark.parametrize("way", ["delete", "gate"])
def test_a_parent_that_may_not_be_taken_for_granted_stops_it(merge: Published, way: str) -> None:
    if way == "delete":
        merge.api.delete_repo(merge.parents[1])
        reason = f"there is no model {merge.parents[1]} on the Hub, or it is private and the token may not read it"
        hint = f"Name models that can be read in mergekit_config.yml of {merge.repo}, and run the same command again."
    else:
        merge.api.update_repo_settings(merge.parents[1], gated="manual")
        reason = f"{merge.parents[1]} asks its readers to accept terms now"
        hint = "If you may publish it all the same, choose its licence"
    result = merge.run("republish", "--if-changed")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[1] == f"  - {merge.parents[1]}: {reason}"
    assert result.stderr.splitlines()[2].startswith(f"Hint: {hint}")


def test_what_is_gone_stays_an_error_whatever_the_licence(merge: Published) -> None:
    merge.api.delete_repo(merge.parents[1])
    assert merge.run("republish", "--license", "mit", "--license-reason", "I know.").exit_code == 3


def test_the_recipe_in_the_repo_counts(merge: Published, tmp_path: Path) -> None:
    edited = merge.text("mergekit_config.yml").replace("0.25", "0.5")
    merge.write("mergekit_config.yml", edited)
    assert merge.run("republish", "--if-changed").exit_code == 0
    assert merge.text("mergekit_config.yml") == edited
    assert merge.shards() == made_on_disk(merge, tmp_path)
    assert " the recipe was edited." in section(merge.text("README.md"), "changes")


def test_seed_and_file_size_are_those_of_the_first_time(hub: LocalHub, tmp_path: Path) -> None:
    def dare(first: str, second: str) -> str:
        settings = "parameters: {weight: 1.0, density: 0.5}"
        return f"merge_method: dare_ties\nbase_model: {first}\nmodels:\n  - model: {second}\n    {settings}\n"

    options = replace(OPTIONS, shard_bytes=8_000, seed=7)
    merge = publish_merge(hub, tmp_path, dare, options=options)
    merge.change_weights(1)
    assert merge.run("republish").exit_code == 0
    merge_to_folder(dare(*merge.parents), tmp_path / "again", options=options)
    assert merge.shards() == {path.name: hash_file(path) for path in (tmp_path / "again").glob("*.safetensors")}


def test_trees_and_adapters_are_followed(hub: LocalHub, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    weights = adapter_weights(adapter, seed=1)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    name = f"local/adapter-{tmp_path.name[-12:]}".rstrip("-_.")

    def tree(first: str, second: str) -> str:
        push_folder(hub.token, name, adapter)
        inner = f"{{merge_method: linear, models: [{{model: {second}+{name}, parameters: {{weight: 1.0}}}}]}}"
        return linear(first, second).replace(f"model: {second}\n", f"model: {inner}\n")

    merge = publish_merge(hub, tmp_path, tree)
    before = merge.shards()
    adapter_weights(adapter, seed=2)
    merge.api.upload_file(path_or_fileobj=weights, path_in_repo=weights.name, repo_id=name)
    status = json.loads(merge.run("status", "--json").stdout)
    assert [(parent["model"], parent["changes"]) for parent in status["parents"]] == [
        (merge.parents[0], []),
        (merge.parents[1], []),
        (name, ["weights"]),
    ]
    told = json.loads(merge.run("republish", "--json").stdout)
    assert len(told["shards_made"]) == 1
    assert merge.shards() == made_on_disk(merge, tmp_path) != before


def test_a_commit_of_somebody_else_is_not_overwritten(merge: Published) -> None:
    merge.change_weights(0)
    recorder = Recorder(on_begin=lambda: merge.write("theirs.txt", "1"))
    with pytest.raises(TargetMovedError) as caught:
        republish(merge.repo, RepublishOptions(target_token=merge.hub.token), progress=recorder)
    assert str(caught.value) == f"{merge.repo} got another commit while the merge ran; nothing was published"
    assert merge.text("theirs.txt") == "1"
    assert merge.run("republish").exit_code == 0
    assert merge.text("theirs.txt") == "1"


def test_a_pull_request_brings_kept_and_new_files(merge: Published, tmp_path: Path) -> None:
    before = merge.shards()
    merge.change_weights(0)
    result = merge.run("republish", "--create-pr")
    assert (result.exit_code, result.stdout) == (0, f"{merge.hub.endpoint}/{merge.repo}/discussions/1\n")
    assert merge.shards() == before
    assert merge.shards("refs/pr/1") == made_on_disk(merge, tmp_path)
    assert not [
        name for name in merge.api.list_repo_files(merge.repo, revision="refs/pr/1") if name.startswith(".hubmerge")
    ]


def test_a_pull_request_that_would_be_empty_is_not_opened(merge: Published) -> None:
    merge.hub.requests.clear()
    result = merge.run("republish", "--create-pr", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["state"], told["new_commit"]) == (0, "up_to_date", merge.head())
    assert list(merge.api.get_repo_discussions(merge.repo)) == []
    assert merge.hub.requests.matching("POST .*/(discussions|commit/)") == []


def test_a_pull_request_may_bring_small_files_alone(merge: Published) -> None:
    config = json.loads((merge.folders[0] / "tokenizer_config.json").read_text())
    merge.write("tokenizer_config.json", json.dumps(config | {"padding_side": "left"}), repo=merge.parents[0])
    result = merge.run("republish", "--create-pr")
    assert (result.exit_code, result.stdout) == (0, f"{merge.hub.endpoint}/{merge.repo}/discussions/1\n")
    assert json.loads(merge.text("tokenizer_config.json", revision="refs/pr/1"))["padding_side"] == "left"
    assert merge.shards("refs/pr/1") == merge.shards()


def test_a_tag_names_the_new_commit_and_must_be_new(merge: Published) -> None:
    merge.change_weights(0)
    assert merge.run("republish", "--tag", "v2").exit_code == 0
    assert {tag.name: tag.target_commit for tag in merge.api.list_repo_refs(merge.repo).tags} == {"v2": merge.head()}
    merge.hub.requests.clear()
    again = merge.run("republish", "--tag", "v2")
    assert (again.exit_code, again.stderr.splitlines()[0]) == (1, f"Error: {merge.repo} has a tag v2 already")
    assert merge.hub.requests.matching("POST .*/commit/") == []


def test_a_tag_and_a_pull_request_do_not_go_together(untouched: Published) -> None:
    result = untouched.run("republish", "--tag", "v2", "--create-pr")
    complaint = "Error: --tag names a commit of main, which --create-pr does not make"
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, complaint)


def test_a_merge_of_a_folder_cannot_be_followed(hub: LocalHub, tmp_path: Path) -> None:
    def with_folder(first: str, second: str) -> str:
        return linear(first, str(tmp_path / second.rpartition("/")[2]))

    merge = publish_merge(hub, tmp_path, with_folder)
    assert json.loads(merge.run("status", "--json").stdout)["parents"][1]["changes"] == ["folder"]
    result = merge.run("republish")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {merge.repo} was merged from a folder, ")
