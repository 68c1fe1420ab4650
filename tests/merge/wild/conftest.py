from __future__ import annotations

import pytest

from tests.merge.wild.stand_ins import StandIns


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    """Tiny checkpoints, each written once."""
    return StandIns(tmp_path_factory.mktemp("stand-ins"))
