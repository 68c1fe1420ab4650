"""A CUDA device made up in the host's memory, for machines without one: strict where a real one is strict.

Its tensors say that they lie on cuda:0. They may not meet tensors of the host in one operation, nor be read by numpy
without a copy; so whatever runs here names its devices right. What it cannot show is how a real card rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from hubmerge.merge.nodes import Bytes
from tests.merge.devices.cards import HostCard

CUDA = torch.device("cuda:0")

MAY_MEET = ("copy_", "__setitem__", "__getitem__")
"""Operations of the first tensor's device that take tensors of the host as well."""
READERS = ("numpy", "__array__")


class OnCuda(Tensor):
    """A tensor of the made-up device."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class MadeUpCuda(TorchFunctionMode):
    """While it is entered, `cuda:0` is there for this thread."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        given.pop("pin_memory", None)
        name = func.__name__
        if func == Tensor.device.__get__:
            return CUDA if isinstance(args[0], OnCuda) else func(*args)
        result_is_on_card = _place(name, args, given)
        _check(name, args, given)
        plain_args, plain_given = tree_map(_plain, (tuple(args), given))
        result = func(*plain_args, **plain_given)
        return tree_map(_on_cuda, result) if result_is_on_card else result


class MadeUpCard(HostCard):
    """The card of that device."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(device=CUDA, **limits)

    def send(self, data: Bytes) -> Tensor:
        return torch.from_numpy(np.array(data)).to(self.device)


def _place(name: str, args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Returns whether the result lies on the device; raises nothing."""
    devices = [each for each in (*args, *given.values()) if isinstance(each, torch.device)]
    if devices:
        return devices[0].type == "cuda"
    if name == "cpu":
        return False
    if name == "to" and len(args) > 1 and isinstance(args[1], Tensor):
        return isinstance(args[1], OnCuda)
    if name in MAY_MEET:
        return isinstance(args[0], OnCuda)
    return any(isinstance(leaf, OnCuda) for leaf in tree_leaves((args, given)))


def _check(name: str, args: Sequence[Any], given: Mapping[str, Any]) -> None:
    leaves = [leaf for leaf in tree_leaves((args, given)) if isinstance(leaf, Tensor)]
    theirs = [leaf for leaf in leaves if isinstance(leaf, OnCuda)]
    ours = [leaf for leaf in leaves if not isinstance(leaf, OnCuda) and leaf.dim() > 0]
    if name in READERS and theirs and not given.get("force"):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")
    if theirs and ours and name not in (*MAY_MEET, "to"):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")


def _plain(value: Any) -> Any:
    if isinstance(value, OnCuda):
        return value.as_subclass(Tensor)
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _on_cuda(value: Any) -> Any:
    return value.as_subclass(OnCuda) if isinstance(value, Tensor) else value
