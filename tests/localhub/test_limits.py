"""Bandwidth and request budgets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session

from hubmerge.localhub import LocalHub
from hubmerge.localhub.options import HubOptions
from tests.localhub.conftest import send

SIZE = 300_000


@pytest.fixture(scope="module")
def slow_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("slow")
    with LocalHub(root) as fast:
        api = HfApi(endpoint=fast.endpoint, token=fast.token)
        api.create_repo("local/slow")
        api.upload_file(path_or_fileobj=bytes(SIZE), path_in_repo="w.bin", repo_id="local/slow")
    with LocalHub(root, options=HubOptions(bytes_per_second=1_000_000)) as slow:
        yield slow


def test_downloads_share_the_bandwidth(slow_hub: LocalHub) -> None:
    url = f"{slow_hub.endpoint}/local/slow/resolve/main/w.bin"
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        sizes = list(pool.map(lambda _: len(get_session().get(url).content), range(2)))
    assert sizes == [SIZE, SIZE]
    assert time.monotonic() - began >= 2 * SIZE / 1_000_000


def test_metadata_is_not_slowed_down(slow_hub: LocalHub) -> None:
    began = time.monotonic()
    for _ in range(5):
        send(slow_hub, "GET", "/api/models/local/slow")
    assert time.monotonic() - began < 2


def test_a_budget_of_requests_is_used_up(tmp_path: Path) -> None:
    options = HubOptions(requests_per_window=3, window_seconds=10_000)
    with LocalHub(tmp_path, options=options) as hub:
        assert [send(hub, "GET", "/api/models").status for _ in range(3)] == [200] * 3
        refused = send(hub, "GET", "/api/models")
        assert refused.status == 429
        assert refused.headers["RateLimit"].startswith('"api";r=0;t=')
        assert refused.headers["RateLimit-Policy"] == '"fixed window";"api";q=3;w=10000'
        assert send(hub, "GET", "/a/b/resolve/main/x").status == 401
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        for _ in range(3):
            api.whoami()
        with pytest.raises(HfHubHTTPError, match="You've hit the rate limit"):
            api.whoami()
