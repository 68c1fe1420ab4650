from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.errors import BudgetError
from hubmerge.trainer.shape import ModelShape, shape_from, shape_of
from hubmerge.weights.checkpoint import open_checkpoint
from hubmerge.weights.reference import ModelRef
from tests.checkpoints import write_llama


@pytest.fixture
def llama(tmp_path: Path) -> ModelShape:
    checkpoint = open_checkpoint(ModelRef(str(write_llama(tmp_path / "llama", seed=0))))
    return shape_of(checkpoint)


def test_sizes_come_from_the_tensors(llama: ModelShape) -> None:
    assert (llama.layers, llama.hidden, llama.inner, llama.context) == (2, 16, 32, 128)
    assert llama.linear_parameters == 2 * (2 * 16 * 16 + 2 * 8 * 16 + 3 * 32 * 16)
    assert llama.largest_linear == 32 * 16
    assert llama.other_parameters == 2 * 64 * 16 + 5 * 16


def test_adapter_has_rows_and_columns_of_each_target(llama: ModelShape) -> None:
    assert llama.adapter_parameters(4, ["all-linear"]) == 4 * 2 * (2 * 32 + 2 * 24 + 3 * 48)
    assert llama.adapter_parameters(4, ["q_proj", "v_proj"]) == 4 * 2 * (32 + 24)


def test_adapter_of_unknown_layers_is_refused(llama: ModelShape) -> None:
    with pytest.raises(BudgetError) as error:
        llama.adapter_parameters(4, ["c_attn"])
    assert (str(error.value), error.value.hint) == (
        "no linear layer is called c_attn",
        "There are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj.",
    )


def test_names_of_another_architecture_make_no_difference() -> None:
    shapes = {"transformer.wte.weight": (64, 16), "transformer.h.0.mlp.c_fc.weight": (48, 16)}
    found = shape_from(shapes, {"n_layer": 1, "n_positions": 512})
    assert (found.layers, found.hidden, found.inner, found.vocabulary, found.context) == (1, 16, 48, 64, 512)


def test_mixture_of_experts_is_refused() -> None:
    shapes = {"model.embed_tokens.weight": (64, 16), "model.layers.0.mlp.experts.0.w1.weight": (48, 16)}
    with pytest.raises(BudgetError) as error:
        shape_from(shapes, {"num_hidden_layers": 1})
    assert str(error.value) == "the model is a mixture of experts, which preference tuning does not support yet"
