"""Repos as a whole, through HfApi."""

from __future__ import annotations

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

CARD = b"---\nlicense: mit\nbase_model:\n- a/one\n- b/two\ntags: [merge]\n---\n# Card\n"


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_every_kind_of_repo_is_created_and_deleted(api: HfApi, repo_type: str) -> None:
    sdk = {"space_sdk": "static"} if repo_type == "space" else {}
    created = api.create_repo("ann/short-lived", repo_type=repo_type, **sdk)
    assert (created.repo_id, created.repo_type) == ("ann/short-lived", repo_type)
    assert api.list_repo_files("ann/short-lived", repo_type=repo_type) == [".gitattributes"]
    assert [commit.title for commit in api.list_repo_commits("ann/short-lived", repo_type=repo_type)] == [
        "initial commit"
    ]
    api.delete_repo("ann/short-lived", repo_type=repo_type)
    assert not api.repo_exists("ann/short-lived", repo_type=repo_type)
    api.delete_repo("ann/short-lived", repo_type=repo_type, missing_ok=True)


def test_a_repo_that_exists_is_not_created_again(api: HfApi, repo: str) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_repo(repo)
    assert caught.value.response.status_code == 409
    assert api.create_repo(repo, exist_ok=True).repo_id == repo


def test_a_bare_name_is_the_users_own(api: HfApi) -> None:
    assert api.create_repo("bare").repo_id == "ann/bare"


def test_organisations_own_repos_too(api: HfApi) -> None:
    api.create_repo("acme/ours", exist_ok=True)
    assert api.model_info("acme/ours").author == "acme"


def test_foreign_namespaces_are_closed(api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError, match="You don't have the rights to create a model under the namespace bob"):
        api.create_repo("bob/mine")


def test_private_repos_look_missing_to_others(api: HfApi, stranger: HfApi) -> None:
    api.create_repo("ann/secret", private=True)
    assert api.model_info("ann/secret").private
    for other in (stranger, HfApi(token=False)):
        with pytest.raises(RepositoryNotFoundError):
            other.model_info("ann/secret")
    assert "ann/secret" not in {model.id for model in stranger.list_models(author="ann")}
    api.update_repo_settings("ann/secret", private=False)
    assert stranger.model_info("ann/secret").id == "ann/secret"


def test_a_renamed_repo_is_found_under_both_names(api: HfApi, repo: str) -> None:
    head = api.model_info(repo).sha
    api.move_repo(repo, f"acme/{repo[4:]}")
    assert (api.model_info(repo).id, api.model_info(repo).sha) == (f"acme/{repo[4:]}", head)
    api.create_repo(repo)
    assert api.model_info(repo).id == repo


def test_info_tells_files_card_and_descent(api: HfApi, repo: str) -> None:
    api.upload_file(path_or_fileobj=CARD, path_in_repo="README.md", repo_id=repo)
    info = api.model_info(repo, files_metadata=True)
    (readme,) = [file for file in info.siblings if file.rfilename == "README.md"]
    assert (readme.size, readme.lfs) == (len(CARD), None)
    assert info.card_data.base_model == ["a/one", "b/two"]
    assert {"merge", "license:mit", "base_model:a/one", "base_model:merge:b/two"} <= set(info.tags)
    assert info.base_models["relation"] == "merge"
    assert [model["id"] for model in info.base_models["models"]] == ["a/one", "b/two"]


def test_expand_gives_the_asked_fields_only(api: HfApi, repo: str) -> None:
    info = api.model_info(repo, expand=["sha", "gated"])
    assert info.sha is not None
    assert (info.gated, info.siblings, info.tags) == (False, None, None)


def test_children_of_a_model_are_found_by_their_tag(api: HfApi) -> None:
    api.create_repo("ann/child")
    api.upload_file(path_or_fileobj=CARD, path_in_repo="README.md", repo_id="ann/child")
    found = {model.id for model in api.list_models(filter="base_model:merge:a/one")}
    assert "ann/child" in found
    assert not list(api.list_models(filter="base_model:quantized:a/one"))


def test_lists_are_narrowed_and_paged(lfs_api: HfApi) -> None:
    for number in range(5):
        lfs_api.create_repo(f"local/listed-{number}", exist_ok=True)
    assert [model.id for model in lfs_api.list_models(search="LISTED-")] == [
        f"local/listed-{n}" for n in (4, 3, 2, 1, 0)
    ]
    assert len(list(lfs_api.list_models(search="listed", limit=3))) == 3
    assert not list(lfs_api.list_models(author="nobody"))
    assert len(list(lfs_api.list_models(filter=["region:us"], search="listed-1"))) == 1


def test_unknown_revisions_are_named_as_such(api: HfApi, repo: str) -> None:
    for revision in ("nope", "0" * 40, "refs/pr/7"):
        with pytest.raises(RevisionNotFoundError):
            api.model_info(repo, revision=revision)


def test_a_bad_card_is_refused_before_anything_is_uploaded(api: HfApi, repo: str) -> None:
    bad = b"---\nbase_model: ../local\n---\n"
    with pytest.raises(ValueError, match=r'"base_model" with value "\.\./local" is not valid') as caught:
        api.upload_file(path_or_fileobj=bad, path_in_repo="README.md", repo_id=repo)
    assert str(caught.value).startswith("Invalid metadata in README.md.")
    assert "README.md" not in api.list_repo_files(repo)


def test_a_broken_checkpoint_does_not_hide_its_repo(api: HfApi, repo: str) -> None:
    header = b'{"a":{"dtype":"F32","shape":"x"},"b":7}'
    operations = [
        CommitOperationAdd("model.safetensors", len(header).to_bytes(8, "little") + header),
        CommitOperationAdd("config.json", b'{"architectures": {}, "model_type": 3}'),
    ]
    api.create_commit(repo, operations, commit_message="broken")
    info = api.model_info(repo)
    assert (info.safetensors, info.pipeline_tag) == (None, None)
