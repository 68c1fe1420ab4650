"""Models brought into memory, for training and for proof."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubmerge.errors import TrainError
from hubmerge.weights.checkpoint import DEFAULT_BRANCH

if TYPE_CHECKING:
    import torch

LIBRARIES = ("trl", "peft", "transformers", "datasets", "bitsandbytes")


@dataclass(frozen=True)
class Weights:
    """Where a model's weights are.

    Attributes:
        path: A folder or a Hub id.
        revision: The commit of a Hub id.
    """

    path: str
    revision: str | None = None


def check_libraries() -> None:
    """Raises TrainError if something that tuning needs is not installed."""
    from importlib.util import find_spec

    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise TrainError(
            f"preference tuning needs {' and '.join(missing)}", hint="Install it: pip install 'hubmerge[dpo]'."
        )


def check_report(name: str) -> None:
    """Raises TrainError if a training cannot report to that."""
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    if name == "none":
        return
    if name not in INTEGRATION_TO_CALLBACK:
        raise TrainError(
            f"a training cannot report to {name}", hint=f"It can to {', '.join(sorted(INTEGRATION_TO_CALLBACK))}."
        )
    if name not in get_available_reporting_integrations():  # type: ignore[no-untyped-call]
        raise TrainError(f"reporting to {name} needs its package", hint=f"Install it: pip install {name}.")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries' bars, advice and deprecations off the screen; errors are raised as ever."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def dtype_of(precision: str) -> torch.dtype:
    """Returns the dtype of the arithmetic."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)


def load_model(
    weights: Weights, *, quant: str, precision: str, adapter: Path | None = None, token: str | bool | None = None
) -> Any:
    """Returns a causal language model on the GPU, or on the CPU where there is none.

    Args:
        weights: Which.
        quant: `none`, or `nf4` for NF4 with double quantisation.
        precision: Of the weights that are not quantised; said explicitly, as TRL would take fp32.
        adapter: Laid on it, in fp32.
        token: For reading a Hub id.

    Raises:
        TrainError: transformers cannot load it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = {"": 0} if torch.cuda.is_available() else None
    config = _quantisation(precision) if quant == "nf4" else None
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(
                weights.path,
                revision=weights.revision or DEFAULT_BRANCH,
                dtype=dtype_of(precision),
                quantization_config=config,
                device_map=device,
                token=token,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise TrainError(f"the model {weights.path} cannot be loaded: {reason}") from error
    model.config.use_cache = False
    return model if adapter is None else _with_adapter(model, adapter)


def _quantisation(precision: str) -> Any:
    import bitsandbytes
    from transformers import BitsAndBytesConfig

    # On CPUs with bf16 instructions bitsandbytes repacks weights at the first evaluation, after which they pass no
    # gradients (only a warning says so).
    modules: Any = bitsandbytes.nn.modules
    modules.has_avx512bf16 = lambda: False
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype_of(precision),
    )


def _with_adapter(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter))


def release() -> None:
    """Gives the GPU's memory back after the last reference to a model is gone."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
