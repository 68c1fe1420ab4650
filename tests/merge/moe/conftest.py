"""Dense models that the mixtures here are made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tests.merge.moe.experts import write_dense

KINDS = ("llama", "mistral", "qwen2", "qwen3")


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Path, Path]]:
    """Two fp32 models of each kind; nobody may write to them."""
    folder = tmp_path_factory.mktemp("dense")
    return {
        kind: (
            write_dense(folder / f"{kind}-1", kind, seed=1, dtype=torch.float32),
            write_dense(folder / f"{kind}-2", kind, seed=2, dtype=torch.float32),
        )
        for kind in KINDS
    }
