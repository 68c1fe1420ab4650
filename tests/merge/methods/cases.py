"""Settings under which every method is compared with its formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.method import Settings
from tests.merge.methods.operands import settings_for


@dataclass(frozen=True)
class Case:
    """A method with settings and a number of tensors, the base included."""

    method: str
    count: int
    has_base: bool
    values: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.method, str(self.count), *(f"{key}={value}" for key, value in self.values.items())])

    def settings(self) -> Settings:
        return settings_for(METHODS[self.method], self.count - self.has_base, **self.values)

    def tensors(self, shape: Sequence[int]) -> list[Tensor]:
        """Returns a base and tensors around it, rounded to bf16 so that many elements of a task vector are equal."""
        generator = torch.Generator().manual_seed(len(str(self)))
        base = torch.randn(tuple(shape), generator=generator)
        others = [base + 0.3 * torch.randn(tuple(shape), generator=generator) for _ in range(self.count - 1)]
        return [tensor.bfloat16().float() for tensor in (base, *others)]


def _with_base(method: str, count: int = 4, **values: Any) -> Case:
    return Case(method, count, True, values)


def _without_base(method: str, count: int = 3, **values: Any) -> Case:
    return Case(method, count, False, values)


WEIGHTS = [0.5, 0.75, 0.25]
MIXED = [0.5, -0.75, 1.0]
DENSITIES = [0.3, 0.5, 0.9]

CASES = [
    _without_base("linear", weight=WEIGHTS),
    _without_base("linear", weight=MIXED, normalize=False),
    _without_base("linear", 1, weight=2.0),
    _without_base("passthrough", 1),
    _without_base("passthrough", 1, scale=0.5),
    _with_base("slerp", 2, t=0.3),
    _with_base("slerp", 2, t=1.5),
    _with_base("task_arithmetic", weight=MIXED),
    _with_base("task_arithmetic", weight=WEIGHTS, density=0.5, normalize=True, **{"lambda": 0.5}),
    _with_base("ties", weight=WEIGHTS, density=DENSITIES),
    _with_base("ties", weight=MIXED, density=0.4),
    _with_base("ties", weight=WEIGHTS, density=[0.001, 0.0, 1.0], normalize=False),
    _with_base("ties", 2, density=0.5, rescale=True, **{"lambda": 1.5}),
    _with_base("dare_linear", weight=WEIGHTS, density=DENSITIES),
    _with_base("dare_linear", weight=MIXED, density=[0.5, 0.0, 1.0], rescale=False, normalize=True),
    _with_base("dare_ties", weight=WEIGHTS, density=DENSITIES),
    _with_base("dare_ties", weight=MIXED, density=0.4, rescale=False, normalize=True),
    _with_base("breadcrumbs", weight=WEIGHTS, density=DENSITIES, gamma=[0.01, 0.1, 0.5]),
    _with_base("breadcrumbs", weight=MIXED, density=[0.0, 0.2, 1.0], gamma=0.2, rescale=True),
    _with_base("breadcrumbs_ties", weight=WEIGHTS, density=DENSITIES),
    _with_base("breadcrumbs_ties", weight=MIXED, density=0.5, gamma=0.1, normalize=True),
    _with_base("della", weight=WEIGHTS, density=DENSITIES, epsilon=[0.25, 0.4, 0.05]),
    _with_base("della", weight=MIXED, density=[0.0, 0.5, 1.0], rescale=False),
    _with_base("della_linear", weight=WEIGHTS, density=0.5),
    _with_base("della_linear", 2, density=0.7, epsilon=0.1, normalize=True, **{"lambda": 0.5}),
    _with_base("nuslerp", 3, weight=[1.0, 0.5]),
    _with_base("nuslerp", 3, nuslerp_flatten=False),
    _without_base("nuslerp", 2, weight=[0.2, 0.8]),
    _without_base("nuslerp", 2, weight=[1.0, -1.0]),
    _without_base("nuslerp", 2, weight=[0.2, 0.6], nuslerp_flatten=False),
    _without_base("nuslerp", 2, weight=[0.2, 0.6], nuslerp_flatten=False, nuslerp_row_wise=True),
    _without_base("multislerp", weight=WEIGHTS),
    _without_base("multislerp", weight=MIXED, normalize_weights=False, eps=0.01),
    _with_base("multislerp", weight=WEIGHTS),
    _with_base("multislerp", 2, weight=0.5),
    _without_base("karcher"),
    _without_base("karcher", 5, max_iter=2),
    _without_base("karcher", 1),
    _with_base("model_stock"),
    _with_base("model_stock", 3, filter_wise=True),
    _with_base("nearswap", 2, t=0.1),
    _with_base("nearswap", 2, t=1e-7),
    _with_base("ram", epsilon=0.3),
    _with_base("ramplus_tl", epsilon=0.3, alpha=0.9, r=0.5),
    _with_base("ramplus_tl", 2),
    _with_base("arcee_fusion", 2),
    _with_base("sce"),
    _with_base("sce", 3, select_topk=0.2),
    _with_base("sce", 2, select_topk=0.5),
]
