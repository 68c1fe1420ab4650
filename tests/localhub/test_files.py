"""Downloads: ranges, redirects, signed addresses."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import get_session

from hubmerge.localhub import LocalHub
from tests.localhub.conftest import Answer, send

SMALL = b"0123456789"
LARGE = bytes(range(256)) * 100


@pytest.fixture(scope="module")
def repo(api: HfApi) -> str:
    api.create_repo("ann/files")
    api.upload_file(path_or_fileobj=SMALL, path_in_repo="small.txt", repo_id="ann/files")
    api.upload_file(path_or_fileobj=LARGE, path_in_repo="large.safetensors", repo_id="ann/files")
    return "ann/files"


def get(hub: LocalHub, path: str, **headers: str) -> Answer:
    return send(hub, "GET", path, **headers)


def signed_path(hub: LocalHub, repo: str) -> str:
    location = urlsplit(get(hub, f"/{repo}/resolve/main/large.safetensors").headers["Location"])
    assert location.hostname == "localhost"
    return f"{location.path}?{location.query}"


@pytest.mark.parametrize(
    ("header", "status", "body", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=-99", 206, SMALL, "bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=5-4", 200, SMALL, None),
        ("bytes=0-1,4-5", 200, SMALL, None),
        ("lines=1-2", 200, SMALL, None),
        ("bytes=-", 200, SMALL, None),
    ],
)
def test_one_range_of_a_file_is_sent(
    hub: LocalHub, repo: str, header: str, status: int, body: bytes, content_range: str | None
) -> None:
    answer = get(hub, f"/{repo}/resolve/main/small.txt", Range=header)
    assert (answer.status, answer.body, answer.headers.get("Content-Range")) == (status, body, content_range)


def test_a_range_behind_the_end_is_refused(hub: LocalHub, repo: str) -> None:
    answer = get(hub, f"/{repo}/resolve/main/small.txt", Range="bytes=10-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */10")


def test_small_files_are_sent_at_once_with_their_git_id(hub: LocalHub, api: HfApi, repo: str) -> None:
    answer = send(hub, "HEAD", f"/{repo}/resolve/main/small.txt")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "10")
    (listed,) = api.get_paths_info(repo, ["small.txt"])
    assert answer.headers["ETag"] == f'"{listed.blob_id}"'
    assert answer.headers["X-Repo-Commit"] == api.model_info(repo).sha


def test_large_files_are_elsewhere(api: HfApi, repo: str) -> None:
    (listed,) = api.get_paths_info(repo, ["large.safetensors"])
    metadata = get_hf_file_metadata(hf_hub_url(repo, "large.safetensors"))
    assert (metadata.etag, metadata.size) == (listed.lfs.sha256, len(LARGE))
    assert metadata.xet_file_data.file_hash == listed.xet_hash


def test_a_client_follows_to_the_content_without_its_token(hub: LocalHub, token: str, repo: str) -> None:
    hub.requests.clear()
    headers = {"Authorization": f"Bearer {token}", "Range": "bytes=256-258"}
    answer = get_session().get(hf_hub_url(repo, "large.safetensors"), headers=headers)
    assert (answer.status_code, answer.content) == (206, b"\0\1\2")
    resolved, content = hub.requests
    assert (resolved.status, resolved.token_name, resolved.ref) == (302, "ann", "main")
    assert (content.status, content.token_name, content.range, content.sent_bytes) == (206, None, "bytes=256-258", 3)
    assert content.path.startswith("/cdn/files/")
    assert content.path.endswith("/large.safetensors")


def test_a_token_sent_to_the_content_address_is_noticed(hub: LocalHub, token: str, repo: str) -> None:
    answer = send(hub, "GET", signed_path(hub, repo), token=token)
    assert answer.status == 400
    assert b"Only one auth mechanism allowed" in answer.body


def test_an_altered_address_is_refused(hub: LocalHub, repo: str) -> None:
    path = signed_path(hub, repo)
    assert get(hub, path).body == LARGE
    later = re.sub(r"expires=\d+", "expires=9999999999", path)
    other = path.replace("large.safetensors", "other.safetensors")
    for altered in (later, other, path.partition("?")[0], f"{path}0"):
        answer = get(hub, altered)
        assert (answer.status, answer.headers["X-Error-Message"]) == (403, "The signature of this address is wrong")


def test_missing_files_are_told_with_the_commit(hub: LocalHub, api: HfApi, repo: str) -> None:
    answer = send(hub, "HEAD", f"/{repo}/resolve/main/absent.txt")
    assert (answer.status, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert answer.headers["X-Repo-Commit"] == api.model_info(repo).sha


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ann/files/resolve/main/..%2f..%2f..%2fsecret.key", 404),
        ("/ann/files/resolve/main/../../../secret.key", 404),
        ("/ann/files/resolve/..%2f..%2fsecret.key/x", 404),
        ("/..%2f..%2f/x/resolve/main/tokens.json", 401),
        ("/api/models/..%2f..%2fx", 401),
        ("/api/models/ann/files/tree/main/..%2f..", 404),
        ("/api/models/ann/files/revision/..%2f..%2frepo", 404),
        ("/cdn/files/..%2f..%2ftokens.json/x", 403),
        ("/ann/files/resolve/main/%00", 404),
        ("/ann/files/resolve/main/a%0d%0aX-Evil:%201", 404),
    ],
)
def test_paths_do_not_lead_out(hub: LocalHub, repo: str, path: str, status: int) -> None:
    answer = get(hub, path)
    assert answer.status == status
    assert b"hf_" not in answer.body
    assert "X-Evil" not in answer.headers


def test_files_of_a_renamed_repo_are_redirected_to_its_new_name(hub: LocalHub, api: HfApi, repo: str) -> None:
    api.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id=repo)
    api.move_repo(repo, f"{repo}-moved")
    answer = send(hub, "GET", f"/{repo}/resolve/main/a.txt")
    assert (answer.status, answer.headers["Location"]) == (307, f"/{repo}-moved/resolve/main/a.txt")
