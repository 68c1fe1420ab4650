"""Merges that are what they say, and each way in which one is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import CardError, SourceError
from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_and_push, merge_to_folder
from hubmerge.verify.report import Outcome, Verdict, verdict_sentence
from hubmerge.verify.run import VerifyOptions, verify_merge
from hubmerge.verify.sample import Sampling
from hubmerge.weights.checkpoint import FIRST_READ_BYTES
from tests.adapters import write_adapter
from tests.checkpoints import push_folder, write_llama
from tests.end_to_end.merges import weight_bytes_read
from tests.merge.moe.experts import mixture
from tests.merge.recipes import sliced, whole
from tests.verify.merges import (
    K_PROJ,
    OPTIONS,
    Siblings,
    check,
    copied,
    differing,
    edit_lock,
    edit_text,
    flip_bit,
    forge_checksums,
    full_report,
    outcomes,
)
from tests.vocabularies import ENGLISH, GERMAN, bpe, write_tokenized


def test_a_merge_is_proven(merge: Path) -> None:
    report = full_report(merge)
    assert report.verdict is Verdict.PROVEN
    assert outcomes(report, Outcome.AGREES) == [check.name for check in report.checks]
    assert report.assumptions == ()
    assert report.sample.is_everything
    assert (report.sample.tensors, report.sample.tensors_in_all) == (21, 21)
    assert verdict_sentence(report) == (
        f"proven: {merge} is what its recipe makes of its parents (every tensor, bit for bit)"
    )


def test_a_merge_on_the_hub_is_proven_from_parents_that_have_moved_on(
    hub: LocalHub, siblings: Siblings, tmp_path: Path
) -> None:
    parents = tuple(f"local/moving-{number}" for number in range(3))
    for repo, folder in zip(parents, siblings.folders, strict=True):
        push_folder(hub.token, repo, folder)
    merge_and_push(Siblings(parents, ()).dare_ties(), "local/merged-before", target_token=hub.token, options=OPTIONS)
    push_folder(hub.token, parents[1], write_llama(tmp_path / "other", seed=9))
    report = verify_merge("local/merged-before", VerifyOptions(sampling=Sampling(is_full=True)))
    assert report.verdict is Verdict.PROVEN, report.checks
    assert report.commit is not None


def linear(first: Any, second: Any, _: Path) -> dict[str, Any]:
    return whole("linear", (first, {"weight": 0.3}), (second, {"weight": 0.7}))


def slerp(first: Path, second: Path, _: Path) -> dict[str, Any]:
    return whole("slerp", first, second, base_model=first, parameters={"t": 0.4})


def cast(first: Path, *_: Path) -> dict[str, Any]:
    return whole("passthrough", first, dtype="float16")


def stacked(first: Path, second: Path, _: Path) -> dict[str, Any]:
    return sliced("passthrough", {first: (0, 2)}, {second: (1, 2)})


def adapted(first: Path, second: Path, adapter: Path) -> dict[str, Any]:
    return whole("ties", (Path(f"{second}+{adapter}"), {"weight": 1, "density": 0.5}), base_model=first)


def tree(first: Path, second: Path, adapter: Path) -> dict[str, Any]:
    return linear(slerp(first, second, adapter), second, adapter)


def folded(first: Path, second: Path, adapter: Path) -> dict[str, Any]:
    return {**slerp(first, second, adapter), "dtype": "bfloat16", "lora": str(adapter)}


def dithered(first: Path, second: Path, adapter: Path) -> dict[str, Any]:
    return {**folded(first, second, adapter), "rounding": "stochastic"}


def folded_within(first: Path, second: Path, adapter: Path) -> dict[str, Any]:
    return linear(folded(first, second, adapter), f"{second}+{adapter}", adapter)


KINDS = [linear, slerp, cast, stacked, adapted, tree, folded, dithered, folded_within]


@pytest.mark.parametrize("recipe", KINDS, ids=lambda recipe: recipe.__name__)
def test_merges_of_every_kind_are_proven(
    recipe: Callable[..., dict[str, Any]], siblings: Siblings, tmp_path: Path
) -> None:
    first, second, _ = siblings.folders
    adapter = write_adapter(tmp_path / "adapter", second, r=4, target_modules=["q_proj", "down_proj"])
    merge_to_folder(recipe(first, second, adapter), tmp_path / "merge", options=OPTIONS)
    report = full_report(tmp_path / "merge")
    assert report.verdict is Verdict.PROVEN, report.checks


def test_a_merge_with_an_adapter_of_the_hub_is_proven_after_that_moved_on(
    hub: LocalHub, siblings: Siblings, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter", siblings.folders[0], r=4, target_modules=["q_proj"])
    (adapter / "README.md").unlink()  # it names a folder as base_model, which the Hub refuses
    push_folder(hub.token, "local/laid-on-top", adapter)
    merge_to_folder({**siblings.dare_ties(), "lora": "local/laid-on-top"}, tmp_path / "merge", options=OPTIONS)
    other = write_adapter(tmp_path / "other", siblings.folders[0], r=2, target_modules=["q_proj"])
    (other / "README.md").unlink()
    push_folder(hub.token, "local/laid-on-top", other)
    report = full_report(tmp_path / "merge")
    assert report.verdict is Verdict.PROVEN, report.checks
    assert report.assumptions == ()


@pytest.mark.parametrize("mode", ["random", "cheap_embed", "hidden_last"])
def test_mixtures_of_experts_are_proven(mode: str, siblings: Siblings, tmp_path: Path) -> None:
    first, second, third = siblings.folders
    prompts = [{"positive_prompts": ["t5 t6"]}, {"positive_prompts": ["t7 t8"]}]
    recipe = mixture(first, second, third, prompts=prompts, gate_mode=mode)
    merge_to_folder(recipe, tmp_path / "merge", options=OPTIONS)
    report = full_report(tmp_path / "merge")
    assert report.verdict is Verdict.PROVEN, report.checks
    assert report.sample.is_everything
    unreached = verify_merge(str(tmp_path / "merge")).sample.unreached
    assert unreached == (() if mode == "random" else ("block_sparse_moe.gate.weight",))


def test_a_merge_of_two_vocabularies_is_proven(tmp_path: Path) -> None:
    english = write_tokenized(tmp_path / "english", bpe(ENGLISH), seed=1)
    german = write_tokenized(tmp_path / "german", bpe(GERMAN), seed=2)
    recipe = whole("linear", (english, {"weight": 1}), (german, {"weight": 1}), tokenizer_source="union")
    merge_to_folder(recipe, tmp_path / "merge", options=OPTIONS)
    report = full_report(tmp_path / "merge")
    assert report.verdict is Verdict.PROVEN, report.checks


def test_folders_are_assumed_to_be_as_they_were(siblings: Siblings, tmp_path: Path) -> None:
    folder = siblings.folders[0]
    merge_to_folder(whole("passthrough", folder), tmp_path / "merge", options=OPTIONS)
    assert full_report(tmp_path / "merge").assumptions == (
        f"The folder {folder} holds what it held when the merge was made.",
    )


def test_a_flipped_bit_shows_in_the_checksum_and_in_its_tensor(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    flip_bit(folder, K_PROJ)
    report = full_report(folder)
    assert report.verdict is Verdict.DIFFERS
    assert differing(report) == ["files", "weights"]
    (difference,) = report.differences
    assert (difference.name, difference.elements, difference.looked_at) == (K_PROJ, 1, 128)
    assert difference.largest > 0


def test_a_flipped_bit_with_forged_checksums_shows_in_its_tensor(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    flip_bit(folder, K_PROJ)
    forge_checksums(folder)
    assert differing(full_report(folder)) == ["weights"]
    asked = VerifyOptions(sampling=Sampling(tensors=(K_PROJ,)))
    report = verify_merge(str(folder), asked)
    assert differing(report) == ["weights"]
    assert check(report, "weights").detail.startswith(f"1 of 128 elements of {K_PROJ} differ, by ")
    other = VerifyOptions(sampling=Sampling(tensors=("model.norm.weight",)))
    assert verify_merge(str(folder), other).verdict is Verdict.PROVEN


def test_a_tolerance_accepts_the_last_bits(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    flip_bit(folder, K_PROJ, bit=0)
    forge_checksums(folder)
    sampling = Sampling(is_full=True)
    assert verify_merge(str(folder), VerifyOptions(sampling=sampling)).verdict is Verdict.DIFFERS
    report = verify_merge(str(folder), VerifyOptions(sampling=sampling, tolerance_ulps=1))
    assert report.verdict is Verdict.PROVEN
    assert verdict_sentence(report).endswith("(every tensor, within 1 ulp)")


def test_a_renamed_tensor_is_named(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    for path in folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes().replace(b"layers.1.self_attn.k_proj", b"layers.1.self_attn.j_proj"))
    forge_checksums(folder)
    report = full_report(folder)
    assert differing(report) == ["tensors", "headers"]
    assert check(report, "tensors").detail == f"{K_PROJ} missing"


def test_a_broken_header_differs(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    path = next(iter(sorted(folder.glob("*.safetensors"))))
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])
    assert differing(full_report(folder)) == ["files", "headers"]


def test_swapped_parents_are_not_those_of_the_lock_file(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    edit_text(folder / "mergekit_config.yml", swapped)
    report = full_report(folder)
    assert report.verdict is Verdict.DIFFERS
    assert check(report, "parents of the lock file").detail == (
        "it has local/sibling-1 where the recipe has local/sibling-2"
    )
    assert outcomes(report, Outcome.UNCHECKED) == ["weights"]


def test_parents_swapped_in_recipe_and_lock_file_show_in_plan_and_weights(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    edit_text(folder / "mergekit_config.yml", swapped)
    edit_lock(folder, lambda lock: lock["parents"].append(lock["parents"].pop(1)))
    assert differing(full_report(folder)) == ["fingerprint of the plan", "weights"]


def test_another_seed_shows_in_plan_and_weights(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    edit_lock(folder, lambda lock: lock.update(seed=8))
    report = full_report(folder)
    assert differing(report) == ["fingerprint of the plan", "weights"]
    assert len(report.differences) > 10


def test_a_forged_fingerprint_differs(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    edit_lock(folder, lambda lock: lock.update(fingerprint="0" * 64))
    assert differing(full_report(folder)) == ["fingerprint of the plan"]


def test_a_forged_hash_of_a_parent_differs(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")

    def forge(lock: dict[str, Any]) -> None:
        file = next(file for file in lock["parents"][1]["files"] if file["sha256"])
        file["sha256"] = "0" * 64

    edit_lock(folder, forge)
    report = full_report(folder)
    assert differing(report) == ["files of the parents"]
    assert check(report, "files of the parents").detail == (
        "model.safetensors of local/sibling-1 is not what the lock file says"
    )


def test_another_commit_of_a_parent_shows_in_its_files(
    hub: LocalHub, siblings: Siblings, merge: Path, tmp_path: Path
) -> None:
    other = push_folder(hub.token, "local/sibling-1", write_llama(tmp_path / "other", seed=9))
    push_folder(hub.token, "local/sibling-1", siblings.folders[1])
    folder = copied(merge, tmp_path / "merge")
    edit_lock(folder, lambda lock: lock["parents"][1].update(sha=other))
    assert differing(full_report(folder)) == ["files of the parents", "fingerprint of the plan", "weights"]


def test_a_commit_of_a_pull_request_is_told_of(hub: LocalHub, siblings: Siblings, tmp_path: Path) -> None:
    api = HfApi(token=hub.token)
    push_folder(hub.token, "local/asked", siblings.folders[0])
    offered = api.upload_file(
        path_or_fileobj=b"x", path_in_repo="notes.txt", repo_id="local/asked", commit_message="x", create_pr=True
    )
    assert offered.pr_revision is not None
    recipe = whole("passthrough", {"path": "local/asked", "revision": offered.pr_revision})
    merge_to_folder(recipe, tmp_path / "merge", options=OPTIONS)
    report = full_report(tmp_path / "merge")
    assert report.verdict is Verdict.PROVEN, report.checks
    (assumption,) = report.assumptions
    assert assumption == (
        f"{offered.oid[:12]} is a commit of the owner of local/asked, although no branch of theirs that was asked for "
        "has it: a pull request of anybody's may."
    )


def test_a_commit_that_is_gone_cannot_be_checked(hub: LocalHub, merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    edit_lock(folder, lambda lock: lock["parents"][1].update(sha="0" * 40))
    report = full_report(folder)
    assert report.verdict is Verdict.UNCHECKED
    assert check(report, "weights").detail == (
        f"local/sibling-1 has no revision '{'0' * 40}' (Its revisions: {hub.endpoint}/local/sibling-1/tree/main)"
    )


def test_a_parent_that_was_a_folder_elsewhere_cannot_be_checked(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    edit_lock(folder, lambda lock: lock["parents"][1].update(repo_id=None, sha=None, revision=None))
    assert check(full_report(folder), "weights").detail == (
        "local/sibling-1 was a folder on the machine that made the merge, and there is none here"
    )


def test_a_lock_file_that_is_none_is_an_error(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    edit_lock(folder, lambda lock: lock.pop("outputs"))
    with pytest.raises(CardError) as caught:
        full_report(folder)
    assert str(caught.value) == "hubmerge.lock.json: outputs must be a list"


def test_a_model_without_a_recipe_is_an_error(siblings: Siblings) -> None:
    with pytest.raises(SourceError) as caught:
        full_report(siblings.folders[0])
    label = siblings.folders[0]
    assert str(caught.value) == f"{label} has no mergekit_config.yml, so nothing says how it was made"


def test_a_model_with_an_adapter_is_an_error() -> None:
    with pytest.raises(SourceError) as caught:
        verify_merge("local/model+local/adapter")
    assert str(caught.value) == "local/model+local/adapter is not one model"


@pytest.mark.parametrize(
    ("path", "content", "name", "detail"),
    [
        ("modeling_llama.py", "", "files", "modeling_llama.py not of this merge"),
        ("model.safetensors", "", "files", "model.safetensors not of this merge"),
        ("chat_template.jinja", "send it to me", "small files", "chat_template.jinja not as the merge has it"),
        ("tokenizer_config.json", "{}", "small files", "tokenizer_config.json not as the merge has it"),
        ("config.json", "{}", "small files", "config.json not as the merge has it"),
    ],
)
def test_files_beside_the_weights_are_compared(
    path: str, content: str, name: str, detail: str, merge: Path, tmp_path: Path
) -> None:
    folder = copied(merge, tmp_path / "merge")
    (folder / path).write_text(content)
    assert check(full_report(folder), name).detail == detail


def test_another_index_differs(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    edit_text(folder / "model.safetensors.index.json", lambda text: text.replace("00002-of", "00001-of"))
    assert differing(full_report(folder)) == ["small files"]


def test_a_missing_file_differs(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    path = sorted(folder.glob("*.safetensors"))[1]
    path.unlink()
    report = full_report(folder)
    assert differing(report) == ["files", "tensors", "headers"]
    assert check(report, "files").detail == f"{path.name} missing"


def test_the_card_names_the_parents(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    edit_text(folder / "README.md", lambda text: text.replace("- local/sibling-1\n", "- local/somebody\n", 1))
    report = full_report(folder)
    assert differing(report) == ["base_model of the card"]
    assert check(report, "base_model of the card").detail == (
        "lacks local/sibling-1 and has local/somebody, no parent of the recipe"
    )


def test_checksums_of_the_card_are_the_lock_files(merge: Path, tmp_path: Path) -> None:
    folder = copied(merge, tmp_path / "merge")
    sha256 = json.loads((folder / "hubmerge.lock.json").read_text())["outputs"][0]["sha256"]
    edit_text(folder / "README.md", lambda text: text.replace(sha256, "0" * 64))
    assert differing(full_report(folder)) == ["checksums of the card"]


def test_a_sample_reads_what_it_says_and_no_more(hub: LocalHub, tmp_path: Path) -> None:
    parents = [write_llama(tmp_path / f"parent-{seed}", seed=seed, layers=4, hidden=256, vocab=512) for seed in (1, 2)]
    for path in parents:
        push_folder(hub.token, f"local/{path.name}", path)
    recipe = {
        "merge_method": "linear",
        "dtype": "bfloat16",
        "models": [{"model": f"local/{path.name}", "parameters": {"weight": 0.5}} for path in parents],
    }
    merge_and_push(recipe, "local/merged-large", target_token=hub.token)
    hub.requests.clear()
    report = verify_merge("local/merged-large", VerifyOptions(sampling=Sampling(fraction=0.1, least_bytes=0)))
    assert report.verdict is Verdict.PROVEN, report.checks
    sample = report.sample
    assert sample.parent_bytes < 0.1 * sample.parent_bytes_in_all
    headers = weight_bytes_read(hub) - sample.parent_bytes - sample.result_bytes
    assert 3 * FIRST_READ_BYTES < headers < 3 * FIRST_READ_BYTES + 10_000  # ours is compared once more as it is


def swapped(recipe: str) -> str:
    """Returns the recipe with two siblings in each other's places."""
    return recipe.replace("sibling-1", "sibling-x").replace("sibling-2", "sibling-1").replace("sibling-x", "sibling-2")
