"""Siblings that most merges here are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import write_llama


@pytest.fixture(scope="session")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Three Llamas of 4 layers with tokenizers; nobody may write to them."""
    folder = tmp_path_factory.mktemp("llamas")
    first, second, third = (write_llama(folder / f"llama-{seed}", seed=seed, layers=4) for seed in range(3))
    return first, second, third
