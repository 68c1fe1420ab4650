"""Adapters of peft on models of several architectures, folded in and compared with what peft makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from hubmerge.errors import PlanError
from hubmerge.merge.pipeline import plan_recipe
from tests.adapters import change_config, merged_by_peft, write_adapter
from tests.architectures import MODELS, SMALL
from tests.checkpoints import write_model
from tests.merge.merging import merged
from tests.merge.recipes import whole

ARCHITECTURES: dict[str, Callable[[], PreTrainedModel]] = {
    **{name: MODELS[name] for name in ("gpt-neox", "gpt2", "llama", "qwen2")},
    "phi": lambda: transformers.PhiForCausalLM(transformers.PhiConfig(**SMALL)),
}
SQUARE = {"gpt-neox": "dense", "gpt2": "attn.c_proj", "llama": "q_proj", "qwen2": "q_proj", "phi": "dense"}
"""Modules whose weights are square, and do not show whether they are stored as `(in, out)`."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = ARCHITECTURES[request.param]()
    return write_model(tmp_path_factory.mktemp("bases") / request.param, model, seed=1, dtype=torch.float32)


def assert_is_peft_s(base: Path, adapter: Path, tmp_path: Path) -> None:
    ours = merged(whole("passthrough", Path(f"{base}+{adapter}")), tmp_path / "out")
    theirs = merged_by_peft(base, adapter, tmp_path / "peft")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "bias": "all", "use_rslora": True},
        {"target_modules": "all-linear", "bias": "lora_only", "lora_alpha": 3},
    ],
    ids=str,
)
def test_every_linear_weight_is_what_peft_makes_of_it(base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    assert_is_peft_s(base, write_adapter(tmp_path / "adapter", base, r=4, **config), tmp_path)


@pytest.mark.parametrize("flag", [True, False])
def test_square_weights_are_what_peft_makes_of_them_whatever_the_flag_says(
    base: Path, tmp_path: Path, *, flag: bool
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, r=4, target_modules=[SQUARE[base.name]])
    change_config(adapter, {"fan_in_fan_out": flag})
    assert_is_peft_s(base, adapter, tmp_path)


def test_a_head_that_is_called_otherwise_on_disk_is_refused(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", MODELS["gpt-neox"](), seed=1, dtype=torch.float32)
    adapter = write_adapter(tmp_path / "adapter", base, r=4, target_modules=["query_key_value", "lm_head"])
    with pytest.raises(PlanError) as caught:
        plan_recipe(whole("passthrough", Path(f"{base}+{adapter}")))
    assert caught.value.problems == tuple(
        f"{adapter}: base_model.model.lm_head.{part}.weight: it fits no tensor of {base}"
        for part in ("base_layer", "lora_A", "lora_B")
    )
