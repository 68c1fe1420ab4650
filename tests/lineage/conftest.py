"""The ancestry of AlphaMonarch-7B on the local Hub, crawled once."""

from __future__ import annotations

import pytest

from hubmerge.lineage.crawl import crawl
from hubmerge.lineage.graph import Lineage
from hubmerge.localhub import LocalHub
from tests.lineage import monarch
from tests.lineage.repos import api_of, publish


@pytest.fixture(scope="session")
def published_monarch(hub: LocalHub) -> str:
    publish(hub, *monarch.REPOS)
    api_of(hub, monarch.GATED.split("/")[0]).update_repo_settings(monarch.GATED, gated="manual")
    return monarch.ROOT


@pytest.fixture(scope="session")
def alpha(published_monarch: str) -> Lineage:
    return crawl(published_monarch, token=False)
