"""What cannot be merged is refused in a sentence that says what can."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hubmerge.errors import SourceError
from hubmerge.weights.checkpoint import open_checkpoint
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.unsupported import DEQUANTIZE
from tests.checkpoints import write_llama
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


PICKLED = "has pickled weights only, which can run any code when they are read"
PICKLED_FILES = (["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"], ["consolidated.00.pth"])


@pytest.mark.parametrize(
    ("names", "message", "hint"),
    [
        ([], "has a config.json but no weights", None),
        (["tf_model.h5"], "has a config.json but no weights", None),
        (["m.gguf"], "has GGUF files only", UNMERGED),
        (["adapter_config.json", "adapter_model.safetensors"], "is a LoRA adapter, not a model", WITH_ADAPTER),
    ],
)
def test_without_weights(tmp_path: Path, names: list[str], message: str, hint: str | None) -> None:
    folder = write_checkpoint(tmp_path / "m", dict.fromkeys(names, b""))
    assert refusal(folder) == (message, hint)


@pytest.mark.parametrize("names", PICKLED_FILES)
def test_pickled_weights_are_refused_with_two_ways_out(tmp_path: Path, names: list[str]) -> None:
    message, hint = refusal(write_checkpoint(tmp_path / "m", dict.fromkeys(names, b"")))
    assert message == PICKLED
    assert hint is not None
    online, _, here = hint.partition("; or here")
    assert online == (
        "Convert it at https://huggingface.co/spaces/safetensors/convert and name the revision of the pull request "
        "that this makes, e.g. `@refs/pr/1`"
    )
    assert here.startswith(", with all of it in memory and no code of it run, and name the folder: python -c ")


def test_the_command_that_converts_pickled_weights_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_llama(tmp_path / "model", seed=1)
    tensors = load_file(model / "model.safetensors")
    torch.save(tensors, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    _, hint = refusal(model)
    monkeypatch.chdir(tmp_path)
    *_, python_command, code = shlex.split(str(hint)[str(hint).index("python -c") :])
    assert python_command == "-c"
    exec(code)
    converted = load_file(tmp_path / "converted" / "model.safetensors")
    assert converted.keys() == tensors.keys()
    assert all(torch.equal(converted[name], tensor) for name, tensor in tensors.items())
    assert open_checkpoint(ModelRef(str(tmp_path / "converted"))).tensors.keys() == tensors.keys()


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
