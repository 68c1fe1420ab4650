"""One local Hub for the whole session.

Hugging Face libraries read HF_ENDPOINT when they are imported, so the port is chosen and the variables are set here,
before any test module is.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PORT = _free_port()
HOME = tempfile.TemporaryDirectory(prefix="hubmerge-tests-")
os.environ |= {
    "HF_ENDPOINT": f"http://127.0.0.1:{PORT}",
    "HF_HOME": HOME.name,
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
os.environ.pop("HF_TOKEN", None)

# The same examples on every run of CI: what it says of a change is about the change. At a desk they stay random.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

from hubmerge.localhub import LocalHub  # noqa: E402
from tests.lineage import monarch  # noqa: E402
from tests.lineage.repos import api_of, publish  # noqa: E402


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub"), port=PORT) as running:
        yield running


@pytest.fixture(scope="session")
def published_monarch(hub: LocalHub) -> str:
    """The ancestry of AlphaMonarch-7B on the local Hub."""
    publish(hub, *monarch.REPOS)
    api_of(hub, monarch.GATED.split("/")[0]).update_repo_settings(monarch.GATED, gated="manual")
    return monarch.ROOT


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "hub" in request.fixturenames:
        request.getfixturevalue("hub").faults.clear()
