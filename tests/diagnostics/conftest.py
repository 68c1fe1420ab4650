from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.checkpoints import read_tensors, write_changed, write_llama

ODD = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base and two models tuned from it; nobody may write to them."""
    folder = tmp_path_factory.mktemp("family")
    base = write_llama(folder / "base", seed=0, layers=3, hidden=32)
    found = {"base": base}
    for number, name in enumerate(("a", "b")):
        changes = {
            key: (value.float() + 0.02 * _noise(value.shape, seed=100 * number + place)).bfloat16()
            for place, (key, value) in enumerate(read_tensors(base).items())
        }
        found[name] = write_changed(folder / name, base, changes)
    return found


@pytest.fixture
def with_nan(family: dict[str, Path], tmp_path: Path) -> Path:
    """Model b with two values that are no numbers."""
    broken = read_tensors(family["b"])[ODD].clone()
    broken.view(-1)[[3, 40]] = torch.tensor([float("nan"), float("inf")]).bfloat16()
    return write_changed(tmp_path / "broken", family["b"], {ODD: broken})


def _noise(shape: torch.Size, *, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
