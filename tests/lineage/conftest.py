"""The ancestry of AlphaMonarch-7B, crawled once."""

from __future__ import annotations

import pytest

from hubmerge.lineage.crawl import crawl
from hubmerge.lineage.graph import Lineage


@pytest.fixture(scope="session")
def alpha(published_monarch: str) -> Lineage:
    return crawl(published_monarch, token=False)
