"""What cannot be merged is refused in a sentence that says what can."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.errors import SourceError
from hubmerge.weights.checkpoint import open_checkpoint
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.unsupported import DEQUANTIZE
from tests.weights.weight_files import CONFIG, safetensors_file, write_checkpoint

UNMERGED = "Name the model that they were converted from."
WITH_ADAPTER = "Write `base_model+adapter` for the two."


def refusal(folder: Path) -> tuple[str, str | None]:
    with pytest.raises(SourceError) as caught:
        open_checkpoint(ModelRef(str(folder)))
    return str(caught.value).removeprefix(f"{folder} "), caught.value.hint


@pytest.mark.parametrize(
    ("names", "message", "hint"),
    [
        ([], "is empty", None),
        (["README.md"], "is empty", None),
        (["model_index.json"], "is a diffusers pipeline; only language models can be merged", None),
        (["adapter_config.json", "adapter_model.safetensors"], "is a LoRA adapter, not a model", WITH_ADAPTER),
        (["README.md", "m.Q4_K_M.gguf"], "has GGUF files only", UNMERGED),
        (
            ["model.safetensors"],
            "has no config.json, so it is not a checkpoint of a transformers model",
            None,
        ),
    ],
)
def test_without_a_config(tmp_path: Path, names: list[str], message: str, hint: str | None) -> None:
    folder = write_checkpoint(tmp_path / "m", dict.fromkeys(names, b""), config=None)
    assert refusal(folder) == (message, hint)


CONVERT = (
    "Convert it at https://huggingface.co/spaces/safetensors/convert and name the revision of the "
    "pull request that this makes, e.g. `@refs/pr/1`."
)


@pytest.mark.parametrize(
    ("names", "message", "hint"),
    [
        ([], "has a config.json but no weights", None),
        (["tf_model.h5"], "has a config.json but no weights", None),
        (["m.gguf"], "has GGUF files only", UNMERGED),
        (
            ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
            "has pickled weights only, which can run any code when they are read",
            CONVERT,
        ),
        (["consolidated.00.pth"], "has pickled weights only, which can run any code when they are read", CONVERT),
        (["adapter_config.json", "adapter_model.safetensors"], "is a LoRA adapter, not a model", WITH_ADAPTER),
    ],
)
def test_without_weights(tmp_path: Path, names: list[str], message: str, hint: str | None) -> None:
    folder = write_checkpoint(tmp_path / "m", dict.fromkeys(names, b""))
    assert refusal(folder) == (message, hint)


@pytest.mark.parametrize(
    ("extra", "sign"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "config.json has a quantization_config (gptq)"),
        ({"quantization_config": {"load_in_4bit": True}}, "config.json has a quantization_config"),
        ({"compression_config": {"x": 1}}, "config.json has a compression_config"),
        (
            {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
            "config.json has a quantization_config (fp8)",
        ),
    ],
)
def test_a_config_that_says_quantised(tmp_path: Path, extra: dict[str, object], sign: str) -> None:
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": ["a"]}, config=CONFIG | extra)
    assert refusal(folder) == (f"is quantised: {sign}", DEQUANTIZE)


def test_a_config_that_says_not_quantised(tmp_path: Path) -> None:
    config = CONFIG | {"quantization_config": None, "text_config": None}
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": ["a"]}, config=config)
    assert list(open_checkpoint(ModelRef(str(folder))).tensors) == ["a"]


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.up_proj.qweight",
        "model.layers.0.mlp.up_proj.weight.absmax",
        "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4",
        "model.layers.0.mlp.up_proj.SCB",
        "model.layers.0.mlp.up_proj.weight_scale_inv",
        "model.layers.0.mlp.up_proj.weight_packed",
    ],
)
def test_a_tensor_that_only_quantised_models_have(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": ["model.norm.weight", name]})
    assert refusal(folder) == (f"is quantised: it has a tensor {name}", DEQUANTIZE)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3"])
def test_a_dtype_that_needs_scales(tmp_path: Path, dtype: str) -> None:
    content = safetensors_file(["w"], dtype=dtype, shape=(4, 4))
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": content})
    assert refusal(folder) == (f"is quantised: w has dtype {dtype}", DEQUANTIZE)


@pytest.mark.parametrize("dtype", ["BOOL", "U8", "I64"])
def test_buffers_of_whole_numbers_are_no_sign(tmp_path: Path, dtype: str) -> None:
    content = safetensors_file(["position_ids"], dtype=dtype)
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": content})
    assert list(open_checkpoint(ModelRef(str(folder))).tensors) == ["position_ids"]
