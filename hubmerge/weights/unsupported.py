"""What cannot be merged, told from listings, configs and tensor names, with the way to something that can."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hubmerge.errors import SourceError
from hubmerge.weights.header import ITEM_BITS, TensorInfo
from hubmerge.weights.json_files import text_config

ADAPTER_CONFIG = "adapter_config.json"

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")

_SHORT_COMMIT = re.compile(r"@[0-9a-f]{7}$")

QUANTIZED_SUFFIXES = (
    *(".qweight", ".qzeros", ".g_idx"),  # GPTQ, AWQ
    *(".absmax", ".nested_absmax", ".quant_map", ".nested_quant_map", ".SCB"),  # bitsandbytes
    *(".weight_scale", ".weight_scale_inv", ".weight_packed"),  # FP8, compressed-tensors
)

QUANT_STATE = ".quant_state.bitsandbytes__"

SCALED_DTYPES = frozenset(dtype for dtype in ITEM_BITS if dtype.startswith(("F8_", "F6_", "F4")))
"""Their values mean nothing without scales that are kept beside them."""

DEQUANTIZE = (
    "Name the model that it was quantised from, or load it with transformers, call `model.dequantize()` "
    "and save it with `save_pretrained`."
)


def no_config_error(label: str, paths: Collection[str]) -> SourceError:
    """Returns why files without a config.json are no checkpoint."""
    if "model_index.json" in paths:
        return SourceError(f"{label} is a diffusers pipeline; only language models can be merged")
    if ADAPTER_CONFIG in paths:
        return _adapter_error(label)
    if _has(paths, ".gguf"):
        return _gguf_error(label)
    if all(path in {".gitattributes", "README.md"} for path in paths):
        return SourceError(f"{label} is empty")
    return SourceError(f"{label} has no config.json, so it is not a checkpoint of a transformers model")


def no_weights_error(label: str, paths: Collection[str]) -> SourceError:
    """Returns why files without safetensors are no checkpoint."""
    if _has(paths, PICKLE_SUFFIXES):
        return SourceError(
            f"{label} has pickled weights only, which can run any code when they are read",
            hint="Convert it at https://huggingface.co/spaces/safetensors/convert and name the revision of the pull "
            "request that this makes, e.g. `@refs/pr/1`; or here, with all of it in memory and no code of it run, and "
            f"name the folder: {_conversion(label)}",
        )
    if _has(paths, ".gguf"):
        return _gguf_error(label)
    if ADAPTER_CONFIG in paths:
        return _adapter_error(label)
    return SourceError(f"{label} has a config.json but no weights")


def _conversion(label: str) -> str:
    """Returns the command that writes a checkpoint as safetensors into the folder `converted`."""
    name = json.dumps(_SHORT_COMMIT.sub("", label))
    code = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        f'M.from_pretrained({name}, dtype="auto", weights_only=True).save_pretrained("converted"); '
        f'T.from_pretrained({name}).save_pretrained("converted")'
    )
    return f"python -c {shlex.quote(code)}"


def no_adapter_error(label: str, paths: Collection[str]) -> SourceError:
    """Returns why files are no LoRA adapter in peft's format."""
    if "adapter_config.json" not in paths:
        is_model = "config.json" in paths
        hint = "What stands behind the + is an adapter; list whole models one by one." if is_model else None
        return SourceError(f"{label} has no adapter_config.json, so it is not an adapter", hint=hint)
    if _has(paths, PICKLE_SUFFIXES):
        return SourceError(
            f"{label} has pickled weights only, which can run any code when they are read",
            hint="Load it with peft and save it again with `save_pretrained`, which writes safetensors.",
        )
    return SourceError(f"{label} has no adapter_model.safetensors")


def check_not_quantized(label: str, config: Mapping[str, Any], tensors: Iterable[TensorInfo]) -> None:
    """Refuses weights whose numbers are codes.

    Raises:
        SourceError: The config, a dtype or a tensor's name shows it.
    """
    sign = _sign_in_config(config) or next(filter(None, map(_sign_in_tensor, tensors)), None)
    if sign is not None:
        raise SourceError(f"{label} is quantised: {sign}", hint=DEQUANTIZE)


def _sign_in_config(config: Mapping[str, Any]) -> str | None:
    for part in (config, text_config(config)):
        for key in ("quantization_config", "compression_config"):
            if part.get(key):
                return f"config.json has a {key}{_method_of(part[key])}"
    return None


def _method_of(quantization: object) -> str:
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    return f" ({method})" if isinstance(method, str) else ""


def _sign_in_tensor(tensor: TensorInfo) -> str | None:
    if tensor.dtype in SCALED_DTYPES:
        return f"{tensor.name} has dtype {tensor.dtype}"
    if tensor.name.endswith(QUANTIZED_SUFFIXES) or QUANT_STATE in tensor.name:
        return f"it has a tensor {tensor.name}"
    return None


def _adapter_error(label: str) -> SourceError:
    return SourceError(f"{label} is a LoRA adapter, not a model", hint="Write `base_model+adapter` for the two.")


def _gguf_error(label: str) -> SourceError:
    return SourceError(f"{label} has GGUF files only", hint="Name the model that they were converted from.")


def _has(paths: Collection[str], suffixes: str | tuple[str, ...]) -> bool:
    return any(path.endswith(suffixes) for path in paths)
