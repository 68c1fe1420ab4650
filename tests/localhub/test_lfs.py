"""Uploads to a Hub without Xet: one PUT, or parts."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.localhub import LocalHub
from hubmerge.localhub.options import HubOptions
from tests.localhub.conftest import Answer, send

PART_BYTES = 1024 * 1024

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def repo(lfs_api: HfApi) -> str:
    return str(lfs_api.create_repo("local/lfs", exist_ok=True).repo_id)


def batch(hub: LocalHub, repo: str, data: bytes, *, token: str) -> dict[str, object]:
    announced = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
    body = json.dumps({"operation": "upload", "transfers": ["basic"], "objects": [announced]}).encode()
    (answer,) = json.loads(send(hub, "POST", f"/{repo}.git/info/lfs/objects/batch", token=token, body=body).body)[
        "objects"
    ]
    return answer


def put(hub: LocalHub, href: str, data: bytes) -> Answer:
    address = urlsplit(href)
    return send(hub, "PUT", f"{address.path}?{address.query}", body=data)


@pytest.mark.parametrize("size", [1, 700, PART_BYTES, 3 * PART_BYTES + 5])
def test_files_of_any_size_go_up_and_come_back(
    lfs_hub: LocalHub, lfs_api: HfApi, repo: str, size: int, tmp_path: Path
) -> None:
    data = random.Random(size).randbytes(size)
    lfs_hub.requests.clear()
    lfs_api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id=repo)
    assert len(lfs_hub.requests.matching("PUT /cdn/uploads/")) == -(-size // PART_BYTES)
    got = hf_hub_download(repo, "w.bin", endpoint=lfs_hub.endpoint, token=lfs_hub.token, cache_dir=tmp_path)
    assert Path(got).read_bytes() == data
    (listed,) = lfs_api.get_paths_info(repo, ["w.bin"])
    assert (listed.lfs.sha256, listed.xet_hash) == (hashlib.sha256(data).hexdigest(), None)


def test_a_content_that_is_there_is_not_asked_for_again(lfs_hub: LocalHub, lfs_api: HfApi, repo: str) -> None:
    data = b"\0once"
    assert "actions" in batch(lfs_hub, repo, data, token=lfs_hub.token)
    lfs_api.upload_file(path_or_fileobj=data, path_in_repo="once.bin", repo_id=repo)
    assert "actions" not in batch(lfs_hub, repo, data, token=lfs_hub.token)
    lfs_api.create_repo("local/other", exist_ok=True)
    assert "actions" in batch(lfs_hub, "local/other", data, token=lfs_hub.token)


def test_a_content_other_than_announced_is_refused(lfs_hub: LocalHub, repo: str) -> None:
    href = batch(lfs_hub, repo, b"announced", token=lfs_hub.token)["actions"]["upload"]["href"]
    answer = put(lfs_hub, href, b"different")
    assert answer.status == 400
    assert answer.headers["X-Error-Message"].startswith("The content has sha256 9d6f965ac832e40a5df6c06afe983e3b")
    assert put(lfs_hub, href, b"announced").status == 200


def test_large_files_are_listed_and_forgotten(lfs_hub: LocalHub, lfs_api: HfApi) -> None:
    repo = lfs_api.create_repo("local/cleaned", exist_ok=True).repo_id
    lfs_api.upload_file(path_or_fileobj=b"\0big", path_in_repo="w.bin", repo_id=repo)
    (listed,) = lfs_api.list_lfs_files(repo)
    assert (listed.filename, listed.size, listed.ref) == ("w.bin", 4, "refs/heads/main")
    lfs_api.permanently_delete_lfs_files(repo, [listed])
    assert not list(lfs_api.list_lfs_files(repo))
    assert "actions" in batch(lfs_hub, repo, b"\0big", token=lfs_hub.token)


def test_this_hub_never_heard_of_xet(lfs_hub: LocalHub, repo: str) -> None:
    path = f"/api/models/{repo}/xet-write-token/main"
    assert send(lfs_hub, "GET", path, token=lfs_hub.token).status == 404
    head = send(lfs_hub, "HEAD", f"/{repo}/resolve/main/.gitattributes", token=lfs_hub.token)
    assert not [name for name in head.headers if "xet" in name.lower()]


def test_addresses_expire(tmp_path: Path, lfs_api: HfApi) -> None:
    options = HubOptions(signed_url_seconds=-1)
    with LocalHub(tmp_path, transport="lfs", options=options) as brief:
        api = HfApi(endpoint=brief.endpoint, token=brief.token)
        api.create_repo("local/x")
        href = batch(brief, "local/x", b"data", token=brief.token)["actions"]["upload"]["href"]
        answer = put(brief, href, b"data")
    assert (answer.status, answer.headers["X-Error-Message"]) == (403, "This address has expired")


def test_a_reader_may_not_upload(lfs_hub: LocalHub, lfs_api: HfApi, repo: str) -> None:
    reader = HfApi(endpoint=lfs_hub.endpoint, token=lfs_hub.create_token("local", role="read"))
    with pytest.raises(HfHubHTTPError, match="This token has no write permission"):
        reader.upload_file(path_or_fileobj=b"\0x", path_in_repo="x.bin", repo_id=repo)
