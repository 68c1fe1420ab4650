"""`hubmerge verify` and the statement that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import HfApi

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_and_push
from hubmerge.weights.shards import hash_file
from tests.verify.merges import K_PROJ, OPTIONS, Siblings, copied, edit_lock, flip_bit


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)], catch_exceptions=False)


def test_a_proven_merge_has_exit_code_0(merge: Path) -> None:
    done = run(merge, "--full")
    assert done.exit_code == 0
    assert done.stdout == f"proven: {merge} is what its recipe makes of its parents (every tensor, bit for bit)\n"
    assert "computed again: 21 of 21 tensors, from " in done.stderr


def test_a_memory_budget_is_kept_or_said_to_be_too_small(merge: Path) -> None:
    assert run(merge, "--full", "--memory-budget", "1GB").exit_code == 0
    done = run(merge, "--full", "--memory-budget", "200MB")
    assert done.exit_code == 1
    assert " MB of memory at least, and the budget is 200 MB (Give it --memory-budget" in " ".join(done.stderr.split())


def test_a_tampered_merge_has_exit_code_3_and_names_the_tensor(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    flip_bit(folder, K_PROJ)
    done = run(folder, "--full", "--json")
    assert done.exit_code == 3
    report = json.loads(done.stdout)
    assert report["verdict"] == "differs"
    assert [each["tensor"] for each in report["differences"]] == [K_PROJ]
    assert f"differs: {K_PROJ}, 1 of 128 elements" in done.stderr


def test_what_cannot_be_checked_has_exit_code_1(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    edit_lock(folder, lambda lock: lock["parents"][1].update(sha="0" * 40))
    done = run(folder, "--quiet")
    assert (done.exit_code, done.stderr) == (1, "")
    assert done.stdout.startswith(f"could not check: {folder}, weights: local/sibling-1 has no revision")


def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    done = run(tmp_path / "none")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"Error: there is no folder {tmp_path / 'none'}\n"


def test_a_sample_is_drawn_anew_each_time_unless_its_seed_is_given(merge: Path) -> None:
    seeds = {json.loads(run(merge, "--json").stdout)["sample"]["seed"] for _ in range(2)}
    assert len(seeds) == 2
    assert json.loads(run(merge, "--json", "--sample-seed", 5).stdout)["sample"]["seed"] == 5


@pytest.mark.parametrize(
    "options", [("--full", "--sample", "0.1"), ("--full", "--tensor", "a"), ("--sample", "0.1", "--tensor", "a")]
)
def test_extents_exclude_each_other(options: tuple[str, ...], merge: Path) -> None:
    done = run(merge, *options)
    assert done.exit_code == 2
    assert "--sample, --full and --tensor exclude each other" in done.stderr


def test_a_statement_says_what_was_made_from_what(hub: LocalHub, siblings: Siblings, tmp_path: Path) -> None:
    repo = "local/attested"
    merge_and_push(siblings.dare_ties(), repo, target_token=hub.token, options=OPTIONS)
    api, path = HfApi(), tmp_path / "statement.json"
    sha = api.model_info(repo).sha
    assert run(repo, "--revision", sha, "--attest", path).exit_code == 0
    statement = json.loads(path.read_text())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    subjects = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
    assert subjects == {name: hash_file(Path(api.hf_hub_download(repo, name))) for name in subjects}
    assert {"config.json", "tokenizer.json", "model.safetensors.index.json"} < subjects.keys()
    build = statement["predicate"]["buildDefinition"]
    assert build["externalParameters"]["seed"] == 7
    materials = {each["uri"]: each["digest"] for each in build["resolvedDependencies"]}
    parent = siblings.repos[0]
    commit = api.model_info(parent).sha
    assert materials[f"hf://{parent}@{commit}"] == {"gitCommit": commit}
    assert materials[f"hf://{parent}@{commit}/model.safetensors"] == {
        "sha256": hash_file(siblings.folders[0] / "model.safetensors")
    }
    (result,) = statement["predicate"]["runDetails"]["byproducts"]
    assert result["annotations"]["verdict"] == "proven"


def test_nothing_is_attested_of_a_merge_that_differs(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    flip_bit(folder, K_PROJ)
    assert run(folder, "--full", "--attest", tmp_path / "statement.json").exit_code == 3
    assert not (tmp_path / "statement.json").exists()
