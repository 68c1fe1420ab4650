"""Which weights are looked at, and what that costs: plans of real sizes over files that are all holes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubmerge.errors import HubmergeError
from hubmerge.merge.expr import Load
from hubmerge.merge.pipeline import plan_recipe
from hubmerge.merge.plan import Plan, lay_out
from hubmerge.merge.planned import PlannedTensor
from hubmerge.verify.rebuild import shard_bytes
from hubmerge.verify.sample import Sample, Sampling, choose
from hubmerge.weights.header import Header, TensorInfo, build_header
from tests.adapters import write_adapter
from tests.checkpoints import write_llama
from tests.merge.recipes import whole

LAYERS = 32
PARTS = {
    "input_layernorm": (4096,),
    "post_attention_layernorm": (4096,),
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
OUTER = {"model.embed_tokens": (32000, 4096), "lm_head": (32000, 4096), "model.norm": (4096,)}


def write_7b(folder: Path) -> Path:
    """Returns `folder` with a Mistral 7B of zeros that takes no room on the disk."""
    folder.mkdir()
    shapes = {f"model.layers.{layer}.{part}": shape for layer in range(LAYERS) for part, shape in PARTS.items()}
    header, infos = build_header([(f"{name}.weight", "BF16", shape) for name, shape in (OUTER | shapes).items()])
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(infos[-1].stop)
    config = {"architectures": ["MistralForCausalLM"], "num_hidden_layers": LAYERS, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def mistrals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("mistrals")
    return tuple(write_7b(folder / f"mistral-{number}") for number in range(3))


def plan_of(method: str, models: tuple[Path, ...], **shared: Any) -> Plan:
    base, *others = models
    tuned = ((model, {"weight": 0.5}) for model in others)
    return plan_recipe(whole(method, *tuned, base_model=base, parameters=shared))


def kinds(sample: Sample) -> Counter[str]:
    return Counter(piece.tensor.info.name.partition(".weight")[0].split(".", 3)[-1] for piece in sample.pieces)


def layers(sample: Sample) -> set[str]:
    names = (piece.tensor.info.name for piece in sample.pieces)
    return {name.split(".")[2] for name in names if name.startswith("model.layers.")}


def read_bytes(sample: Sample) -> int:
    return sum(piece.parent_bytes for piece in sample.pieces)


def test_a_merge_that_needs_whole_tensors_is_sampled_by_small_ones(mistrals: tuple[Path, ...]) -> None:
    plan = plan_of("ties", mistrals, density=0.5)
    sample = choose(plan, Sampling())
    assert 0.002 * plan.read_bytes < read_bytes(sample) < 0.01 * plan.read_bytes
    assert all(piece.block is None for piece in sample.pieces)
    assert kinds(sample)["input_layernorm"] == LAYERS
    assert min(kinds(sample)["self_attn.k_proj"], kinds(sample)["self_attn.v_proj"]) >= 3
    large = ("self_attn.o_proj.weight", "mlp.gate_proj.weight", "model.embed_tokens.weight")
    assert set(large) <= set(sample.unreached)


@pytest.mark.parametrize(
    ("method", "shared"),
    [("linear", {}), ("dare_ties", {"density": 0.5, "rescale": False})],
)
def test_a_merge_by_blocks_is_sampled_in_every_tensor(
    method: str, shared: dict[str, Any], mistrals: tuple[Path, ...]
) -> None:
    plan = plan_of(method, mistrals, **shared)
    sample = choose(plan, Sampling())
    assert 0.002 * plan.read_bytes < read_bytes(sample) < 0.01 * plan.read_bytes
    assert sample.unreached == ()
    assert len(layers(sample)) == LAYERS
    assert {piece.tensor.info.name.rsplit(".", 2)[1] for piece in sample.pieces if piece.block} >= {"q_proj", "up_proj"}


def test_equal_seeds_give_equal_samples(mistrals: tuple[Path, ...]) -> None:
    plan = plan_of("ties", mistrals, density=0.5)
    first, again, other = (choose(plan, Sampling(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_larger_fraction_reaches_more(mistrals: tuple[Path, ...]) -> None:
    plan = plan_of("ties", mistrals, density=0.5)
    assert choose(plan, Sampling(fraction=0.2)).unreached == ()


def test_kinds_too_large_for_their_share_get_what_is_left(tmp_path: Path) -> None:
    models = tuple(write_llama(tmp_path / f"model-{seed}", seed=seed, hidden=64) for seed in range(2))
    plan = plan_of("ties", models, density=0.5)
    sample = choose(plan, Sampling(fraction=0.3, least_bytes=0))
    assert "self_attn.k_proj" in kinds(sample)
    assert read_bytes(sample) <= 0.3 * plan.read_bytes


def test_small_models_are_looked_at_in_full(tmp_path: Path) -> None:
    models = tuple(write_llama(tmp_path / f"model-{seed}", seed=seed) for seed in range(2))
    plan = plan_of("ties", models, density=0.5)
    assert len(choose(plan, Sampling()).pieces) == len(list(plan.tensors))


def test_the_factors_of_an_adapter_are_read_with_each_block(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base", seed=1, hidden=512, vocab=64)
    adapter = write_adapter(tmp_path / "adapter", base, r=4, target_modules=["q_proj"])
    plan = plan_recipe(whole("passthrough", Path(f"{base}+{adapter}")))
    name = "model.layers.0.self_attn.q_proj.weight"
    piece = next(piece for piece in choose(plan, Sampling()).pieces if piece.tensor.info.name == name)
    assert piece.block is not None
    assert piece.parent_bytes == 2 * 131_072 + 2 * 4 * 2 * 512 * 2


def test_tensors_that_are_asked_for_are_looked_at_whole(mistrals: tuple[Path, ...]) -> None:
    sample = choose(plan_of("linear", mistrals), Sampling(tensors=("lm_head.weight",)))
    assert [(piece.tensor.info.name, piece.block) for piece in sample.pieces] == [("lm_head.weight", None)]


def test_a_tensor_that_is_not_there_is_an_error(mistrals: tuple[Path, ...]) -> None:
    with pytest.raises(HubmergeError) as caught:
        choose(plan_of("linear", mistrals), Sampling(tensors=("lm_head",)))
    assert str(caught.value) == "the merge has no tensor lm_head"


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=30), most=st.integers(1, 120))
def test_the_division_into_files_is_found_from_the_files(sizes: list[int], most: int) -> None:
    tensors = [planned(f"t{number}", size) for number, size in enumerate(sizes)]
    shards = lay_out(tensors, shard_bytes=most)
    headers = {s.filename: Header(tuple(t.info for t in s.tensors), {}, len(s.header)) for s in shards}
    assert lay_out(tensors, shard_bytes=shard_bytes(headers)) == shards


def planned(name: str, size: int) -> PlannedTensor:
    return PlannedTensor(name, "U8", (size,), Load(0, "a", TensorInfo(name, "U8", (size,), 0, size)))
