"""What every merge method promises, whatever its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.method import Base, Method, blocks_of
from tests.merge.methods.cases import CASES, Case
from tests.merge.methods.operands import merge, settings_for
from tests.merge.methods.oracle import ORACLES

SHAPES = [(), (1,), (7,), (5, 1), (3, 33), (2, 3, 5)]
"""One element, odd lengths, one column, more than two dimensions."""
LARGE = (1_025, 333)
"""Three blocks that end at odd elements."""

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def tensors_for(method: Method, shape: tuple[int, ...], *, seed: int = 0, count: int | None = None) -> list[Tensor]:
    """Returns a base and models near it, as fine-tuning leaves them."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator)
    count = count or min(4, method.most or 4)
    return [base] + [base + 0.3 * torch.randn(shape, generator=generator) for _ in range(count - 1)]


def default_merge(method: Method, tensors: list[Tensor], **options: object) -> Tensor:
    has_base = method.base is not Base.DONOR
    return merge(method, tensors, settings_for(method, len(tensors) - has_base), **options)


def test_methods_are_sorted_by_name() -> None:
    assert list(METHODS) == sorted(METHODS)
    assert all(name == method.name for name, method in METHODS.items())


def test_every_method_has_a_case_and_an_oracle() -> None:
    assert {case.method for case in CASES} == set(METHODS) == set(ORACLES)


@every_case
@pytest.mark.parametrize("shape", [*SHAPES, (64, 96)], ids=str)
def test_result_agrees_with_the_formula(case: Case, shape: tuple[int, ...]) -> None:
    assert_agrees(case, shape)


@every_case
def test_result_over_several_blocks_agrees_with_the_formula(case: Case) -> None:
    assert len(blocks_of(LARGE)) == 3
    assert_agrees(case, LARGE)


def assert_agrees(case: Case, shape: tuple[int, ...]) -> None:
    tensors, settings = case.tensors(shape), case.settings()
    expected = ORACLES[case.method](tensors, settings, seed=0, name="w")
    result = merge(METHODS[case.method], tensors, settings, name="w")
    scale = max(float(tensor.abs().max()) for tensor in tensors)
    np.testing.assert_allclose(result.double().numpy(), expected, rtol=0, atol=1e-6 * scale)


@every_method
def test_equal_models_merge_to_themselves(method: Method) -> None:
    tensor = tensors_for(method, (64, 48))[0]
    copies = [tensor.clone() for _ in tensors_for(method, ())]
    torch.testing.assert_close(default_merge(method, copies), tensor, rtol=1e-6, atol=1e-6)


@every_method
@pytest.mark.parametrize("shape", [*SHAPES, (0,), (4, 0)], ids=str)
def test_shape_is_kept_and_values_are_finite(method: Method, shape: tuple[int, ...]) -> None:
    result = default_merge(method, tensors_for(method, shape))
    assert result.shape == shape
    assert result.isfinite().all()


@every_method
@pytest.mark.parametrize("shape", [*SHAPES, (64, 48)], ids=str)
def test_zeros_merge_to_zeros(method: Method, shape: tuple[int, ...]) -> None:
    zeros = [torch.zeros(shape) for _ in tensors_for(method, ())]
    assert torch.equal(default_merge(method, zeros), torch.zeros(shape))


@every_method
def test_models_are_not_written_to(method: Method) -> None:
    tensors = tensors_for(method, (16, 24))
    before = [tensor.clone() for tensor in tensors]
    default_merge(method, tensors)
    assert all(torch.equal(old, new) for old, new in zip(before, tensors, strict=True))


@every_case
def test_order_of_blocks_does_not_matter(case: Case) -> None:
    method, tensors, settings = METHODS[case.method], case.tensors(LARGE), case.settings()
    forwards = merge(method, tensors, settings)
    assert torch.equal(merge(method, tensors, settings, blocks_backwards=True), forwards)


@every_method
def test_double_precision_is_kept(method: Method) -> None:
    tensors = [tensor.double() for tensor in tensors_for(method, (16, 24))]
    assert default_merge(method, tensors).dtype == torch.float64


@every_case
def test_half_precision_extremes_do_not_overflow(case: Case) -> None:
    generator = torch.Generator().manual_seed(3)
    tensors = [65_504 * (2 * torch.rand((64, 2_048), generator=generator) - 1) for _ in range(case.count)]
    assert merge(METHODS[case.method], tensors, case.settings()).isfinite().all()


@every_method
def test_summary_is_one_sentence(method: Method) -> None:
    assert method.summary[0].isupper()
    assert method.summary.endswith(".")
    assert ". " not in method.summary
    assert not any(parameter.summary.endswith(".") for parameter in method.parameters)
