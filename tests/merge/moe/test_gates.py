"""Routers from prompts, beside what transformers computes with the whole model in memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hubmerge.merge.expr import Load, Routing
from hubmerge.merge.moe.forward import layer_inputs
from hubmerge.merge.pipeline import merge_to_folder
from hubmerge.weights.header import TensorInfo
from tests.adapters import write_adapter
from tests.checkpoints import read_tensors
from tests.end_to_end.merges import Recorder
from tests.merge.merging import merged
from tests.merge.moe.experts import PROMPTS, SHAPE, mixture

Dense = Mapping[str, tuple[Path, Path]]

INFO = TensorInfo("embedding", "F32", (64, 16), 0, 4096)


def gates(made: Mapping[str, Tensor]) -> Tensor:
    """Returns `(layers, experts, hidden)`."""
    names = [name for name in made if name.endswith(("block_sparse_moe.gate.weight", "mlp.gate.weight"))]
    return torch.stack([made[name] for name in sorted(names)])


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def hidden_states(folder: Path, prompts: Sequence[str], *, average: bool) -> Tensor:
    """Returns `(prompts, layers, hidden)`, each prompt run alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    rows = []
    for prompt in prompts:
        ids = tokenizer(f"{tokenizer.bos_token or ''}{prompt}", add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            states = torch.stack(model(**ids, output_hidden_states=True).hidden_states[:-1])[:, 0]
        rows.append(states.mean(1) if average else states[:, -1])
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("llama", "hidden"), ("mistral", "hidden"), ("qwen2", "hidden"), ("qwen3", "hidden"), ("llama", "hidden_avg")],
)
def test_hidden_routers_are_what_the_layers_are_given(dense: Dense, kind: str, mode: str, tmp_path: Path) -> None:
    one, two = dense[kind]
    shared = {"shared_experts": [{"source_model": str(one), "positive_prompts": ["t20"]}]} if kind == "qwen2" else {}
    made = gates(merged(mixture(one, two, one, prompts=PROMPTS, gate_mode=mode, **shared), tmp_path / "moe"))
    for number, expert in enumerate(PROMPTS):
        expected = hidden_states(one, expert["positive_prompts"], average=mode == "hidden_avg").mean(0)
        if "negative_prompts" in expert:
            expected -= hidden_states(one, expert["negative_prompts"], average=mode == "hidden_avg").mean(0)
        assert torch.allclose(made[:, number], unit(expected), atol=1e-4)


def test_cheap_routers_are_sums_of_embeddings(dense: Dense, tmp_path: Path) -> None:
    one, two = dense["mistral"]
    made = gates(merged(mixture(one, two, one, prompts=PROMPTS, gate_mode="cheap_embed"), tmp_path / "moe"))
    table = read_tensors(one)["model.embed_tokens.weight"]
    beginning = 1
    maths = unit(table[[beginning, 4, 5, beginning, 6, 7, 8]].sum(0)) - unit(table[[beginning, 9]].sum(0))
    code = table[[beginning, 10, 11, 12]].sum(0)
    for layer in range(3):
        assert torch.allclose(made[layer], unit(torch.stack([maths, code])), atol=1e-6)


def test_an_adapter_on_the_base_is_in_what_its_layers_are_given(dense: Dense, tmp_path: Path) -> None:
    one, two = dense["llama"]
    write_adapter(tmp_path / "lora", one, target_modules=["o_proj", "down_proj"])
    base = f"{one}+{tmp_path / 'lora'}"
    passed = {"merge_method": "passthrough", "models": [{"model": base}]}
    merge_to_folder(passed, tmp_path / "adapted")
    made = gates(merged(mixture(base, two, one, prompts=PROMPTS, gate_mode="hidden"), tmp_path / "moe"))
    expected = hidden_states(tmp_path / "adapted", PROMPTS[1]["positive_prompts"], average=False).mean(0)
    assert torch.allclose(made[:, 1], unit(expected), atol=1e-4)


def test_prompts_that_mean_the_same_are_told_of(dense: Dense, tmp_path: Path) -> None:
    one, two = dense["llama"]
    alike = ({"positive_prompts": ["t4 t5"]}, {"positive_prompts": ["t5 t4"]})
    recorder = Recorder()
    recipe = mixture(one, one, two, prompts=alike, gate_mode="cheap_embed")
    merge_to_folder(recipe, tmp_path / "moe", progress=recorder)
    assert recorder.sentences[-1] == (
        "In all layers the prompts of some experts mean nearly the same to the model: choose others"
    )


def test_one_layer_has_weights_at_a_time() -> None:
    config = LlamaConfig(**SHAPE)
    shapes = {name: weight.shape for name, weight in LlamaForCausalLM(config).model.layers[0].named_parameters()}
    alive: list[weakref.ref[Tensor]] = []

    def weights() -> Iterator[dict[str, Tensor]]:
        for _ in range(2):
            assert not any(each() is not None for each in alive)
            layer = {name: torch.randn(shape.numel()) for name, shape in shapes.items()}
            alive.extend(weakref.ref(tensor) for tensor in layer.values())
            yield layer
            del layer

    routing = Routing("hidden_last", (), Load(0, "", INFO), ({}, {}), 0, config.to_dict())
    inputs = layer_inputs(
        routing, torch.randn(1, 3, 16), torch.ones(1, 3), weights(), summary=lambda values: values[:, -1]
    )
    assert len(inputs) == 3
