"""The merge methods, one file a family; each is a record and one or two functions of tensors, see `method`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hubmerge.errors import RecipeError
from hubmerge.merge.methods.arcee_fusion import ARCEE_FUSION
from hubmerge.merge.methods.linear import LINEAR
from hubmerge.merge.methods.method import Method
from hubmerge.merge.methods.model_stock import MODEL_STOCK
from hubmerge.merge.methods.nearswap import NEARSWAP
from hubmerge.merge.methods.nuslerp import NUSLERP
from hubmerge.merge.methods.passthrough import PASSTHROUGH
from hubmerge.merge.methods.ram import RAM, RAMPLUS_TL
from hubmerge.merge.methods.sce import SCE
from hubmerge.merge.methods.slerp import SLERP
from hubmerge.merge.methods.sphere import KARCHER, MULTISLERP
from hubmerge.merge.methods.task_vectors import (
    BREADCRUMBS,
    BREADCRUMBS_TIES,
    DARE_LINEAR,
    DARE_TIES,
    DELLA,
    DELLA_LINEAR,
    TASK_ARITHMETIC,
    TIES,
)

_ALL = (
    ARCEE_FUSION,
    BREADCRUMBS,
    BREADCRUMBS_TIES,
    DARE_LINEAR,
    DARE_TIES,
    DELLA,
    DELLA_LINEAR,
    KARCHER,
    LINEAR,
    MODEL_STOCK,
    MULTISLERP,
    NEARSWAP,
    NUSLERP,
    PASSTHROUGH,
    RAM,
    RAMPLUS_TL,
    SCE,
    SLERP,
    TASK_ARITHMETIC,
    TIES,
)

METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in sorted(_ALL, key=lambda m: m.name)})


def get_method(name: str) -> Method:
    """Returns the method that a recipe calls by this name.

    Raises:
        RecipeError: There is none.
    """
    if name not in METHODS:
        raise RecipeError(f"unknown merge_method {name}", hint=f"hubmerge knows {', '.join(METHODS)}.")
    return METHODS[name]
