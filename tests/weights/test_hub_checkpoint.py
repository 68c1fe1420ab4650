"""Checkpoints opened from a Hub: pinned commits, rights, and the sentences for everything that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import HubmergeError, SourceError, TransferError
from hubmerge.localhub import LocalHub
from hubmerge.weights.checkpoint import Checkpoint, open_checkpoint, open_checkpoints
from hubmerge.weights.reference import ModelRef
from tests.weights.weight_files import write_adapter_files, write_checkpoint

SHARDS = {"model-00001-of-00002.safetensors": ["a", "b"], "model-00002-of-00002.safetensors": ["c"]}
WEIGHT_MAP = {name: file for file, names in SHARDS.items() for name in names}
CARD = "---\nlicense: mit\nlanguage: en\n---\n# A model\n"


@pytest.fixture(scope="module")
def token(hub: LocalHub) -> str:
    return hub.create_user("weights")


@pytest.fixture(scope="module")
def stranger(hub: LocalHub) -> str:
    return hub.create_user("stranger")


@pytest.fixture(scope="module")
def api(token: str) -> HfApi:
    return HfApi(token=token)


@pytest.fixture(scope="module")
def repo(api: HfApi, tmp_path_factory: pytest.TempPathFactory) -> str:
    return push(api, "weights/sharded", tmp_path_factory.mktemp("sharded"))


def push(api: HfApi, repo_id: str, folder: Path) -> str:
    write_checkpoint(folder, SHARDS, weight_map=WEIGHT_MAP, card=CARD)
    api.create_repo(repo_id)
    api.upload_folder(repo_id=repo_id, folder_path=folder)
    return repo_id


def refusal(ref: ModelRef, *, token: str | bool | None = False) -> HubmergeError:
    with pytest.raises(HubmergeError) as caught:
        open_checkpoint(ref, token=token)
    return caught.value


def bytes_of(checkpoint: Checkpoint, name: str) -> bytes:
    tensor = checkpoint.tensors[name]
    return checkpoint.files.read(tensor.file, tensor.info.start, tensor.info.stop)


def test_a_checkpoint_is_opened_at_the_commit_of_its_branch(api: HfApi, repo: str) -> None:
    checkpoint = open_checkpoint(ModelRef(repo), token=False)
    assert checkpoint.sha == api.model_info(repo).sha
    assert checkpoint.files.label == f"{repo}@{checkpoint.sha[:7]}"
    assert {name: tensor.file for name, tensor in checkpoint.tensors.items()} == WEIGHT_MAP
    assert checkpoint.config == {"model_type": "llama", "num_hidden_layers": 1}
    assert checkpoint.card == {"license": "mit", "language": "en"}
    assert (checkpoint.gated, checkpoint.private) == (False, False)
    assert bytes_of(checkpoint, "c") == bytes(8)


def test_large_files_are_listed_with_their_hashes(api: HfApi, repo: str) -> None:
    checkpoint = open_checkpoint(ModelRef(repo), token=False)
    entries = checkpoint.files.entries()
    listed = {file.path: file for file in api.list_repo_tree(repo, recursive=True)}
    assert entries.keys() == listed.keys()
    for path, entry in entries.items():
        assert (entry.size_bytes, entry.blob_id) == (listed[path].size, listed[path].blob_id)
    assert entries["config.json"].sha256 is None
    shard = "model-00001-of-00002.safetensors"
    assert entries[shard].sha256 == listed[shard].lfs.sha256


def test_a_branch_that_moves_meanwhile_changes_nothing(api: HfApi, tmp_path: Path) -> None:
    repo = push(api, "weights/moving", tmp_path / "one")
    checkpoint = open_checkpoint(ModelRef(repo), token=False)
    write_checkpoint(tmp_path / "two", {"model-00001-of-00002.safetensors": ["other"]}, config={"moved": True})
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "two")
    assert bytes_of(checkpoint, "a") == bytes(8)
    assert b"moved" not in checkpoint.files.read("config.json", 0, 10)


@pytest.mark.parametrize("branch", ["dev", "refs/pr/1"])
def test_a_branch_or_pull_request_is_a_revision(hub: LocalHub, api: HfApi, tmp_path: Path, branch: str) -> None:
    repo = push(api, f"weights/revision-{branch.replace('/', '-')}", tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "config.json").write_text('{"model_type": "other"}')
    if branch == "dev":
        api.create_branch(repo, branch=branch)
        api.upload_folder(repo_id=repo, folder_path=tmp_path / "two", revision=branch)
    else:
        api.create_pull_request(repo, title="Another config")
        api.upload_folder(repo_id=repo, folder_path=tmp_path / "two", revision=branch)
    checkpoint = open_checkpoint(ModelRef(repo, branch), token=False)
    assert checkpoint.config == {"model_type": "other"}
    assert checkpoint.ref.revision == branch


def test_main_and_no_revision_are_pinned_together(hub: LocalHub, repo: str, tmp_path: Path) -> None:
    adapter = ModelRef(str(write_adapter_files(tmp_path / "adapter")))
    refs = [ModelRef(repo), ModelRef(repo, "main"), ModelRef(repo, adapter=adapter)]
    hub.requests.clear()
    checkpoints = open_checkpoints(refs, token=False)
    assert [checkpoint.ref for checkpoint in checkpoints.values()] == refs
    assert len(hub.requests.matching(rf"^GET /api/models/{repo}(/revision/|$)")) == 1


def test_one_range_a_shard_is_all_that_is_read(hub: LocalHub, repo: str) -> None:
    hub.requests.clear()
    open_checkpoint(ModelRef(repo), token=False)
    assert len(hub.requests.matching(r"^GET /cdn/")) == len(SHARDS)


def test_a_private_repo_is_opened_with_its_token(api: HfApi, token: str, stranger: str, tmp_path: Path) -> None:
    repo = push(api, "weights/private", tmp_path)
    api.update_repo_settings(repo, private=True)
    assert open_checkpoint(ModelRef(repo), token=token).private
    without = refusal(ModelRef(repo))
    assert str(without) == f"there is no model {repo} on the Hub, or it is private and no token was given"
    assert without.hint == "Check the name; if it is private, run `hf auth login`."
    other = refusal(ModelRef(repo), token=stranger)
    assert str(other) == f"there is no model {repo} on the Hub, or it is private and the token may not read it"
    assert other.hint == "Check the name; run `hf auth whoami` to see which account is used."


def test_a_gated_repo_says_where_to_accept(
    hub: LocalHub, api: HfApi, token: str, stranger: str, tmp_path: Path
) -> None:
    repo = push(api, "weights/gated", tmp_path)
    api.update_repo_settings(repo, gated="manual")
    assert open_checkpoint(ModelRef(repo), token=token).gated
    without = refusal(ModelRef(repo))
    assert str(without) == f"{repo} is gated, and a reader without an account has not been let in"
    assert without.hint == f"Accept its terms at {hub.endpoint}/{repo}."
    assert str(refusal(ModelRef(repo), token=stranger)) == f"{repo} is gated, and this account has not been let in"


def test_an_unknown_revision_is_named(hub: LocalHub, repo: str) -> None:
    error = refusal(ModelRef(repo, "v9"))
    assert str(error) == f"{repo} has no revision 'v9'"
    assert error.hint == f"Its revisions: {hub.endpoint}/{repo}/tree/main"


def test_a_bad_token_is_named(repo: str) -> None:
    error = refusal(ModelRef(repo), token="hf_wrong")
    assert str(error) == "the Hub does not accept the token"
    assert error.hint == "Run `hf auth login`. HF_TOKEN, if set, goes before it."


@pytest.mark.parametrize("broken", ["", " ", "hf_secret\n", "hf_secret x", "hf_s\xe9cret"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(hub: LocalHub, repo: str, broken: str) -> None:
    hub.requests.clear()
    error = refusal(ModelRef(repo), token=broken)
    assert str(error) == "the token is empty or has characters that no token has, such as a space or a line break"
    assert error.hint == "Copy it anew from https://huggingface.co/settings/tokens."
    assert list(hub.requests) == []


def test_a_name_that_no_repo_can_have_is_neither_folder_nor_model() -> None:
    assert str(refusal(ModelRef("a/b/c"))) == "'a/b/c' is neither a folder nor a possible name of a model on the Hub"


def test_an_empty_repo_is_empty(api: HfApi) -> None:
    api.create_repo("weights/empty")
    error = refusal(ModelRef("weights/empty"))
    assert isinstance(error, SourceError)
    assert str(error) == f"weights/empty@{api.model_info('weights/empty').sha[:7]} is empty"


def test_offline_mode_is_named(repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refusal(ModelRef(repo))
    assert isinstance(error, TransferError)
    assert str(error) == "the Hub cannot be asked because offline mode is on"
    assert error.hint == "Unset HF_HUB_OFFLINE, or name local folders."


def test_an_expired_signed_address_is_asked_for_anew(hub: LocalHub, repo: str) -> None:
    checkpoint = open_checkpoint(ModelRef(repo), token=False)
    hub.faults.add(match=r"GET /cdn/", status=403, count=1)
    assert bytes_of(checkpoint, "a") == bytes(8)


@pytest.mark.parametrize("fault", [{"drop_after_bytes": 3}, {"status": 500}])
def test_bytes_that_break_off_come_in_the_end(hub: LocalHub, repo: str, fault: dict[str, int]) -> None:
    checkpoint = open_checkpoint(ModelRef(repo), token=False)
    hub.faults.add(match=r"GET /cdn/", count=1, **fault)
    assert bytes_of(checkpoint, "a") == bytes(8)


def test_a_store_that_ignores_the_range_is_refused(hub: LocalHub, repo: str) -> None:
    checkpoint = open_checkpoint(ModelRef(repo), token=False)
    hub.faults.add(match=r"GET /cdn/", ignore_range=True, count=1)
    with pytest.raises(TransferError, match=r"but the server ignored the range$"):
        bytes_of(checkpoint, "a")


def test_a_failure_that_passes_is_not_seen(hub: LocalHub, repo: str) -> None:
    hub.faults.add(match=rf"GET /api/models/{repo}/revision", status=503, count=1)
    hub.faults.add(match=r"GET .*\.safetensors", status=502, count=2)
    assert list(open_checkpoint(ModelRef(repo), token=False).tensors) == ["a", "b", "c"]


@pytest.mark.parametrize("body", ["<html>Log in</html>", '"hello"', '{"message": "hello"}'])
@pytest.mark.parametrize("question", ["revision/main", "tree"])
def test_a_proxy_that_answers_in_place_of_the_hub_is_one_sentence(
    hub: LocalHub, repo: str, question: str, body: str
) -> None:
    hub.faults.add(match=rf"GET /api/models/{repo}/{question}", status=200, body=body)
    error = refusal(ModelRef(repo, "main"))
    assert str(error) == f"{hub.endpoint} does not answer for {repo} as a Hub does"
    assert error.hint == (
        "Check HF_ENDPOINT, and whether a proxy or a login page answers in its place; then run the command again."
    )


def test_all_refusals_come_at_once(repo: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_checkpoints([ModelRef("weights/none"), ModelRef(repo), ModelRef(repo, "v9")], token=False)
    first, second, third = str(caught.value).splitlines()
    assert first == "2 models cannot be used:"
    assert second.startswith("  - there is no model weights/none on the Hub")
    assert third.startswith(f"  - {repo} has no revision 'v9' (Its revisions: ")
