"""The merge methods from their formulas: whole tensors, fp64, sorts. Independent of the kernels but for random masks.

Task vectors are fp32 differences, as in the kernels: which element is the k-th largest is a statement about them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubmerge.merge.methods.masks import lanes, mask_key
from hubmerge.merge.methods.method import Block, Settings

Array = NDArray[np.float64]


def _wide(tensor: Tensor) -> Array:
    return tensor.double().numpy()


def _deltas(tensors: Sequence[Tensor]) -> list[Array]:
    base, *others = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors)
    return [_wide(other - base) for other in others]


def _random_lanes(shape: Sequence[int], *, seed: int, name: str, index: int) -> NDArray[np.int64]:
    """Returns the unsigned 16-bit numbers of a tensor's elements."""
    numel = math.prod(shape)
    signed = lanes(mask_key(seed, name, index), Block(0, numel, numel), torch.device("cpu"))
    return (signed.numpy().astype(np.int64) + 32_768).reshape(shape)


def _descending(delta: Array) -> NDArray[np.int64]:
    """Returns flat indices by descending magnitude, equal ones from the lowest index on."""
    return np.argsort(-np.abs(delta).ravel(), kind="stable")


def _only(delta: Array, indices: NDArray[np.int64]) -> Array:
    kept = np.zeros(delta.size)
    kept[indices] = delta.ravel()[indices]
    return kept.reshape(delta.shape)


def _magnitude(delta: Array, own: Mapping[str, float], **_: object) -> Array:
    if own["density"] <= 0:
        return np.zeros_like(delta)
    return _only(delta, _descending(delta)[: max(1, int(own["density"] * delta.size))])


def _outliers(delta: Array, own: Mapping[str, float], **_: object) -> Array:
    size = delta.size
    kept, top = int(own["density"] * size), int(own["gamma"] * size)
    bottom = max(0, size - kept - top)
    return _only(delta, _descending(delta)[::-1][bottom : bottom + kept])


def _random(delta: Array, own: Mapping[str, float], **key: object) -> Array:
    return delta * (_random_lanes(delta.shape, **key) < round(own["density"] * 65_536))


def _all(delta: Array, own: Mapping[str, float], **_: object) -> Array:
    return delta


Sparsify = Callable[..., Array]


def _rescaled(delta: Array, kept: Array) -> Array:
    before, after = np.abs(delta).sum(), np.abs(kept).sum()
    return kept if min(before, after) < 1e-7 else kept * (before / after)


def _family(sparsify: Sparsify, *, elect: bool) -> Callable[..., Array]:
    def merge(tensors: Sequence[Tensor], settings: Settings, *, seed: int, name: str) -> Array:
        sparse = []
        for index, delta in enumerate(_deltas(tensors)):
            own = settings.inputs[index]
            whole = own["density"] >= 1 or sparsify is _all
            kept = delta if whole else sparsify(delta, own, seed=seed, name=name, index=index)
            sparse.append(_rescaled(delta, kept) if settings.shared["rescale"] and not whole else kept)
        weights = [own["weight"] for own in settings.inputs]
        weighted = np.stack([weight * delta for weight, delta in zip(weights, sparse, strict=True)])
        mask = np.ones_like(weighted)
        if elect:
            mask = np.sign(weighted) == np.where(weighted.sum(0) >= 0, 1, -1)
        divisor = sum(weight * part for weight, part in zip(weights, mask, strict=True))
        total = (weighted * mask).sum(0)
        if settings.shared["normalize"]:
            total = total / np.where(np.abs(divisor) < 1e-8, 1, divisor)
        return _wide(tensors[0]) + settings.shared["lambda"] * total

    return merge


def _linear(tensors: Sequence[Tensor], settings: Settings, **_: object) -> Array:
    weights = [own["weight"] for own in settings.inputs]
    total = sum(weight * _wide(tensor) for weight, tensor in zip(weights, tensors, strict=True))
    return total / sum(weights) if settings.shared["normalize"] else total


def _passthrough(tensors: Sequence[Tensor], settings: Settings, **_: object) -> Array:
    return _wide(tensors[0]) * settings.inputs[0]["scale"]


def _slerp(tensors: Sequence[Tensor], settings: Settings, **_: object) -> Array:
    a, b = (_wide(tensor) for tensor in tensors)
    t = settings.shared["t"]
    unit_a, unit_b = (x / np.linalg.norm(x) if np.linalg.norm(x) > 1e-8 else x for x in (a, b))
    dot = np.clip((unit_a * unit_b).sum(), -1, 1)
    if abs(dot) > 0.9995:
        return (1 - t) * a + t * b
    theta = np.arccos(dot)
    return (np.sin((1 - t) * theta) * a + np.sin(t * theta) * b) / np.sin(theta)


ORACLES: Mapping[str, Callable[..., Array]] = {
    "breadcrumbs": _family(_outliers, elect=False),
    "breadcrumbs_ties": _family(_outliers, elect=True),
    "dare_linear": _family(_random, elect=False),
    "dare_ties": _family(_random, elect=True),
    "linear": _linear,
    "passthrough": _passthrough,
    "slerp": _slerp,
    "task_arithmetic": _family(_all, elect=False),
    "ties": _family(_magnitude, elect=True),
}
