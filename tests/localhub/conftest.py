"""A user, her repos, a second Hub without Xet, and a Xet store on its own."""

from __future__ import annotations

import http.client
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub
from hubmerge.localhub.options import HubOptions
from tests.localhub.xet_stub import Server, StubHub, serving

_numbers = itertools.count()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def send(
    hub: LocalHub, method: str, path: str, *, token: str | None = None, body: bytes | None = None, **headers: str
) -> Answer:
    """Returns the answer to a request whose path is sent as it is; redirects are not followed."""
    connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"), timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        named["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, body=body, headers=named)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


@pytest.fixture(scope="session")
def token(hub: LocalHub) -> str:
    return hub.create_user("ann", orgs=("acme",))


@pytest.fixture(scope="session")
def stranger(hub: LocalHub) -> HfApi:
    return HfApi(token=hub.create_user("bob"))


@pytest.fixture(scope="session")
def api(token: str) -> HfApi:
    return HfApi(token=token)


@pytest.fixture
def repo(api: HfApi) -> str:
    return str(api.create_repo(f"ann/repo-{next(_numbers)}").repo_id)


@pytest.fixture(scope="session")
def lfs_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    options = HubOptions(part_bytes=1024 * 1024, page_entries=2)
    with LocalHub(tmp_path_factory.mktemp("lfs-hub"), transport="lfs", options=options) as running:
        yield running


@pytest.fixture
def lfs_api(lfs_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """A client of the Hub without Xet, in the state in which HF_HUB_DISABLE_XET=1 puts it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    return HfApi(endpoint=lfs_hub.endpoint, token=lfs_hub.token)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def stub(server: Server, tmp_path: Path) -> StubHub:
    return server.new_stub(tmp_path / "cas")
