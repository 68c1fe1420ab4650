"""Who may see, download and change what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import get_session

from hubmerge.localhub import LocalHub
from tests.localhub.conftest import send


def test_whoami_tells_user_organisations_and_role(api: HfApi) -> None:
    me = api.whoami()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("ann", ["acme"])
    assert me["auth"]["accessToken"] == {"displayName": "ann", "role": "write"}


def test_an_unknown_token_is_refused_everywhere(hub: LocalHub, repo: str) -> None:
    for path in ("/api/whoami-v2", f"/api/models/{repo}", f"/{repo}/resolve/main/.gitattributes"):
        answer = send(hub, "GET", path, token="hf_made_up")
        assert answer.status == 401
        assert answer.headers["X-Error-Message"] == "Invalid credentials in Authorization header"


def test_anonymous_readers_see_public_repos_and_no_more(repo: str) -> None:
    anonymous = HfApi(token=False)
    assert anonymous.model_info(repo).id == repo
    with pytest.raises(RepositoryNotFoundError):
        anonymous.model_info("ann/no-such-repo")
    with pytest.raises(HfHubHTTPError, match="401"):
        anonymous.create_repo("anyone/anything")


def test_a_read_token_changes_nothing(hub: LocalHub, repo: str) -> None:
    reader = HfApi(token=hub.create_token("ann", role="read"))
    assert reader.model_info(repo).id == repo
    with pytest.raises(HfHubHTTPError, match="This token has no write permission"):
        reader.create_repo("ann/more")
    with pytest.raises(HfHubHTTPError, match="This token has no write permission"):
        reader.create_branch(repo, branch="more")


def test_a_fine_grained_token_is_for_its_repos_only(hub: LocalHub, api: HfApi, repo: str) -> None:
    api.create_repo("ann/hidden", private=True, exist_ok=True)
    api.create_repo("acme/ours", exist_ok=True)
    narrow = HfApi(token=hub.create_token("ann", role="fineGrained", repos=[repo]))
    narrow.create_branch(repo, branch="allowed")
    with pytest.raises(RepositoryNotFoundError):
        narrow.model_info("ann/hidden")
    with pytest.raises(HfHubHTTPError, match="You don't have the rights to write to acme/ours"):
        narrow.create_branch("acme/ours", branch="forbidden")


def test_a_gated_repo_shows_itself_but_not_its_files(api: HfApi, stranger: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, gated="manual")
    assert stranger.model_info(repo).gated == "manual"
    for other in (stranger, HfApi(token=False)):
        with pytest.raises(GatedRepoError):
            hf_hub_download(repo, ".gitattributes", token=other.token)
        with pytest.raises(GatedRepoError):
            other.auth_check(repo)
    api.auth_check(repo, write=True)


def test_a_gate_is_shut_for_every_way_to_the_files(hub: LocalHub, api: HfApi, stranger: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, gated="manual")
    paths = ("tree/main", "commits/main", "refs", "xet-read-token/main", "xet-write-token/main")
    for path in (f"/{repo}/resolve/main/.gitattributes", *(f"/api/models/{repo}/{path}" for path in paths)):
        answer = send(hub, "GET", path, token=stranger.token)
        assert (answer.status, answer.headers["X-Error-Code"]) == (403, "GatedRepo"), path


def test_a_manual_gate_is_opened_by_its_owner(hub: LocalHub, api: HfApi, stranger: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, gated="manual")
    assert send(hub, "POST", f"/{repo}/ask-access", token=stranger.token).status == 200
    assert [each.username for each in api.list_pending_access_requests(repo)] == ["bob"]
    api.accept_access_request(repo, "bob")
    assert stranger.list_repo_files(repo) == [".gitattributes"]
    api.reject_access_request(repo, "bob", rejection_reason="changed my mind")
    with pytest.raises(GatedRepoError):
        list(stranger.list_repo_tree(repo))
    api.grant_access(repo, "bob")
    assert [each.username for each in api.list_accepted_access_requests(repo)] == ["bob"]


def test_an_automatic_gate_opens_for_who_asks(hub: LocalHub, api: HfApi, stranger: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, gated="auto")
    with pytest.raises(GatedRepoError):
        stranger.auth_check(repo)
    send(hub, "POST", f"/{repo}/ask-access", token=stranger.token)
    stranger.auth_check(repo)


def test_the_first_start_leaves_a_write_token_that_others_cannot_read(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as fresh:
        token = fresh.token
        api = HfApi(endpoint=fresh.endpoint, token=token)
        assert (api.whoami()["name"], api.create_repo("local/x").repo_id) == ("local", "local/x")
    file = tmp_path / "tokens.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())[0]["value"] == token


def test_tokens_never_reach_the_log(hub: LocalHub, token: str, repo: str) -> None:
    hub.requests.clear()
    get_session().get(f"{hub.endpoint}/api/models/{repo}", headers={"Authorization": f"Bearer {token}"})
    (record,) = hub.requests
    assert record.token_name == "ann"
    assert token not in repr(list(hub.requests))
