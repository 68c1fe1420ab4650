"""Where the library comes from, what becomes of a merge without it, and that a merge does not change with it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hubmerge.merge.native.kernels import MAX_OPERANDS, can_run
from hubmerge.merge.native.library import FOLDER, SOURCES, library, library_path
from tests.checkpoints import write_tensors
from tests.merge.merging import hashes, merged
from tests.merge.native.stored import needs_library
from tests.merge.recipes import whole


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HUBMERGE_NATIVE", "0")
    library.cache_clear()
    yield
    library.cache_clear()


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The build hook's module, which is no part of the package."""
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", Path(__file__).parents[3] / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_library_is_looked_for_under_the_name_that_the_build_gives_it(build: ModuleType) -> None:
    assert library_path() == build.library_path(FOLDER)


def test_a_library_of_another_source_is_not_found(tmp_path: Path) -> None:
    for name in SOURCES:
        (tmp_path / name).write_text("int other;\n")
    assert library_path(tmp_path).name != library_path().name


def test_a_compiler_that_is_missing_is_said_in_one_line(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O9")
    problem = build.compile_library([FOLDER / "kernels.c"], tmp_path / "library.so")
    assert problem == "cannot run no-such-compiler: No such file or directory"


def test_the_compiler_s_first_error_is_told(build: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "wrong.c").write_text("int main(\n")
    problem = build.compile_library([tmp_path / "wrong.c"], tmp_path / "library.so")
    assert "error" in problem
    assert "\n" not in problem


def test_the_environment_turns_it_off(no_library: None) -> None:
    assert library() is None
    assert not can_run(["BF16"])


@needs_library
def test_it_runs_on_three_dtypes_and_so_many_operands() -> None:
    assert can_run(["BF16", "F16", "F32"])
    assert not can_run(["BF16", "F64"])
    assert can_run(["F32"] * MAX_OPERANDS)
    assert not can_run(["F32"] * (MAX_OPERANDS + 1))


@needs_library
@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties", "breadcrumbs", "della"])
def test_a_merge_is_the_same_without_it(method: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    models = [write_tensors(tmp_path / name, small_model(seed)) for seed, name in enumerate("abc")]
    base = {} if method == "linear" else {"base_model": models[0]}
    settings = {"weight": 0.5, **({} if method == "linear" else {"density": 0.5})}
    recipe = whole(method, *models[len(base) :], parameters=settings, **base)
    merged(recipe, tmp_path / "compiled")
    request.getfixturevalue("no_library")
    merged(recipe, tmp_path / "torch")
    weights = "*.safetensors"
    assert hashes(tmp_path / "compiled", weights) == hashes(tmp_path / "torch", weights)


def small_model(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {"w": torch.randn(300, 500, generator=generator), "norm": torch.randn(33, generator=generator)}
    return {name: (1 + 0.1 * tensor).bfloat16() for name, tensor in tensors.items()}
