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
            none = own["density"] <= 0
            kept = delta if whole else delta * 0 if none else sparsify(delta, own, seed=seed, name=name, index=index)
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


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)


def _ranked(delta: Array, own: Mapping[str, float], **key: object) -> Array:
    density, epsilon = own["density"], own["epsilon"]
    rows = np.abs(_rows(delta))
    ranks = np.argsort(np.argsort(rows, axis=1, kind="stable"), axis=1)
    share = ranks / (rows.shape[1] - 1) if rows.shape[1] > 1 else 0.5
    probability = (density - epsilon) + 2 * epsilon * share
    kept = _rows(_random_lanes(delta.shape, **key)) < np.round(probability * 65_536)
    return delta * kept.reshape(delta.shape)


def _line_or_arc(a: Array, b: Array, t: float) -> Array:
    """Interpolates vectors along the last dimension."""
    cosine = (_unit(a) * _unit(b)).sum(-1, keepdims=True).clip(-1, 1)
    theta = np.arccos(cosine)
    with np.errstate(invalid="ignore", divide="ignore"):
        curved = (np.sin((1 - t) * theta) * a + np.sin(t * theta) * b) / np.sin(theta)
    return np.where(1 - cosine**2 < 1e-7, (1 - t) * a + t * b, curved)


def _unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True).clip(1e-7)


def _nuslerp(tensors: Sequence[Tensor], settings: Settings, **_: object) -> Array:
    first, second = (own["weight"] for own in settings.inputs)
    t = 0.5 if abs(first + second) < 1e-6 else second / (first + second)
    base = _wide(tensors[0]) if len(tensors) == 3 else np.zeros(tensors[0].shape)
    a, b = _deltas(tensors) if len(tensors) == 3 else [_wide(tensor) for tensor in tensors]
    if settings.shared["nuslerp_flatten"] or a.ndim < 2:
        result = _line_or_arc(a.ravel(), b.ravel(), t).reshape(a.shape)
    elif settings.shared["nuslerp_row_wise"]:
        result = _line_or_arc(a.swapaxes(0, -1), b.swapaxes(0, -1), t).swapaxes(0, -1)
    else:
        result = _line_or_arc(a, b, t)
    return base + result


def _multislerp(tensors: Sequence[Tensor], settings: Settings, **_: object) -> Array:
    has_base = len(tensors) > len(settings.inputs)
    base = _wide(tensors[0]) if has_base else np.zeros(tensors[0].shape)
    x = np.stack(_deltas(tensors) if has_base else [_wide(tensor) for tensor in tensors]).reshape(
        len(settings.inputs), -1
    )
    if len(x) == 1:
        return base + x.reshape(base.shape)
    weights = np.array([own["weight"] for own in settings.inputs])[:, None]
    if settings.shared["normalize_weights"]:
        weights = weights / weights.sum()
    eps = settings.shared["eps"]
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not norms.any():
        return base
    units = x / (norms + eps)
    mean = (weights * units).sum(0)
    mean = mean / np.linalg.norm(mean)
    tangent = (weights * (units - (units @ mean)[:, None] * mean)).sum(0)
    length = np.linalg.norm(tangent) + eps
    result = (mean * np.cos(length) + tangent * np.sin(length) / length) * (weights * norms).sum()
    return base + result.reshape(base.shape)


def _karcher(tensors: Sequence[Tensor], settings: Settings, **_: object) -> Array:
    x = np.stack([_wide(tensor).ravel() for tensor in tensors])
    tol, shape = settings.shared["tol"], tensors[0].shape
    if len(x) == 1:
        return x.reshape(shape)
    norms = np.linalg.norm(x, axis=1)
    units = (x / norms[:, None].clip(1e-300))[norms > tol]
    if not len(units):
        return np.zeros(shape)
    mean = units.mean(0)
    mean = mean / np.linalg.norm(mean) if np.linalg.norm(mean) >= tol else units[0]
    for _step in range(settings.shared["max_iter"]):
        step = np.zeros_like(mean)
        for unit in units:
            theta = np.arccos(np.clip(unit @ mean, -1, 1))
            if np.sin(theta) > tol:
                step += theta / np.sin(theta) * (unit - np.cos(theta) * mean) / len(units)
        length = np.linalg.norm(step)
        if length < tol:
            break
        mean = np.cos(length) * mean + np.sin(length) / length * step
        mean /= np.linalg.norm(mean)
    return (norms.mean() * mean).reshape(shape)


def _model_stock(tensors: Sequence[Tensor], settings: Settings, **_: object) -> Array:
    base, deltas = _wide(tensors[0]), _deltas(tensors)
    if not settings.shared["filter_wise"]:
        return base + _stock(np.stack([delta.reshape(1, -1) for delta in deltas])).reshape(base.shape)
    return base + _stock(np.stack([_rows(delta) for delta in deltas])).reshape(base.shape)


def _stock(deltas: Array) -> Array:
    """Returns t·mean δ of (models, rows, columns), a t for each row."""
    count = len(deltas)
    cosines = []
    for i in range(count):
        for j in range(i + 1, count):
            norms = np.linalg.norm(deltas[i], axis=1) * np.linalg.norm(deltas[j], axis=1)
            cosines.append(((deltas[i] * deltas[j]).sum(1) / norms.clip(1e-6)).clip(-1, 1))
    cosine = np.mean(cosines, axis=0)
    divisor = 1 + (count - 1) * cosine
    ratio = np.where(np.abs(divisor) < 1e-6, 0, count * cosine / np.where(divisor == 0, 1, divisor))
    return ratio[:, None] * deltas.mean(0)


def _nearswap(tensors: Sequence[Tensor], settings: Settings, **_: object) -> Array:
    a, b = (_wide(tensor) for tensor in tensors)
    weight = (settings.shared["t"] / np.abs(a - b).clip(1e-6)).clip(0, 1)
    return (1 - weight) * a + weight * b


def _ram(tensors: Sequence[Tensor], settings: Settings, **_: object) -> Array:
    deltas = np.stack(_deltas(tensors))
    active = np.abs(deltas) > np.float32(settings.shared["epsilon"])
    count = active.sum(0)
    factors = np.ones(len(deltas))
    if "r" in settings.shared:
        shared = (active & (count > 1)).reshape(len(deltas), -1).sum(1)
        unique = (active & (count == 1)).reshape(len(deltas), -1).sum(1)
        overlap = shared / np.maximum(unique, settings.shared["epsilon"])
        factors = 1 + settings.shared["r"] * overlap.clip(0, settings.shared["alpha"])
    scales = np.stack([np.where(count == 1, factor, 1 / count.clip(1)) for factor in factors])
    return _wide(tensors[0]) + (deltas * active * scales).sum(0)


def _arcee_fusion(tensors: Sequence[Tensor], settings: Settings, **_: object) -> Array:
    base, tuned = (_rows(_wide(tensor)) for tensor in tensors)
    (delta,) = _deltas(tensors)
    p, q = (_softmax(x) + 1e-8 for x in (tuned, base))
    divergence = (p * np.log(p / q)).sum(1, keepdims=True).astype(np.float32)
    importance = (np.abs(_rows(delta)).astype(np.float32) * divergence).reshape(delta.shape)
    ordered = np.sort(importance, axis=None)
    q1, median, q3 = (float(ordered[quarter * (delta.size - 1) // 4]) for quarter in (1, 2, 3))
    return _wide(tensors[0]) + delta * (importance >= np.float32(median + 1.5 * (q3 - q1)))


def _softmax(rows: Array) -> Array:
    powers = np.exp(rows - rows.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _sce(tensors: Sequence[Tensor], settings: Settings, **_: object) -> Array:
    deltas = np.stack(_deltas(tensors))
    if settings.shared["select_topk"] < 1:
        variance = deltas.var(0).astype(np.float32).astype(np.float64)
        selected = int(np.count_nonzero(variance) * settings.shared["select_topk"])
        deltas = deltas * (_only(variance, _descending(variance)[: max(0, selected)]) > 0)
    energies = (deltas**2).reshape(len(deltas), -1).mean(1)
    weights = energies / energies.sum() if energies.sum() >= 1e-6 else np.ones(len(deltas)) / len(deltas)
    mask = np.sign(deltas) == np.where(deltas.sum(0) >= 0, 1, -1)
    kept = mask * weights.reshape(-1, *[1] * (deltas.ndim - 1))
    return _wide(tensors[0]) + (kept * deltas).sum(0) / kept.sum(0).clip(1e-6)


ORACLES: Mapping[str, Callable[..., Array]] = {
    "arcee_fusion": _arcee_fusion,
    "breadcrumbs": _family(_outliers, elect=False),
    "breadcrumbs_ties": _family(_outliers, elect=True),
    "dare_linear": _family(_random, elect=False),
    "dare_ties": _family(_random, elect=True),
    "della": _family(_ranked, elect=True),
    "della_linear": _family(_ranked, elect=False),
    "karcher": _karcher,
    "linear": _linear,
    "model_stock": _model_stock,
    "multislerp": _multislerp,
    "nearswap": _nearswap,
    "nuslerp": _nuslerp,
    "passthrough": _passthrough,
    "ram": _ram,
    "ramplus_tl": _ram,
    "sce": _sce,
    "slerp": _slerp,
    "task_arithmetic": _family(_all, elect=False),
    "ties": _family(_magnitude, elect=True),
}
