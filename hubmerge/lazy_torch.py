"""torch, imported when something of it is first used.

Its import takes longer than the compiled kernels need to merge a billion weights, and they do without it.

    from hubmerge.lazy_torch import torch

Modules that import it so may use torch's types in annotations, which nobody evaluates.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _Torch:
        """Stands for the module: an attribute that is asked for stays."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(import_module("torch"), name)
            setattr(self, name, value)
            return value

    torch = _Torch()
