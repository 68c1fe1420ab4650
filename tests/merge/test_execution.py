from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from hubmerge.errors import MergeError
from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.method import BLOCK_ELEMENTS, Base, Method
from hubmerge.merge.pipeline import merge_to_folder
from tests.checkpoints import read_tensors, write_changed, write_llama, write_tensors
from tests.merge.merging import hashes, merged, ulps
from tests.merge.methods.operands import settings_for
from tests.merge.methods.oracle import ORACLES
from tests.merge.recipes import sliced, whole

Llamas = tuple[Path, Path, Path]
HALF = {"weight": 0.5}


def big_parents(folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> Llamas:
    """Returns siblings with a matrix of three blocks, so that threads and passes over blocks matter."""
    generator = torch.Generator().manual_seed(5)
    base = {"big.weight": torch.randn(600, 512, generator=generator), "norm": torch.randn(512, generator=generator)}
    assert base["big.weight"].numel() > 2 * BLOCK_ELEMENTS
    first, second, third = (
        write_tensors(
            folder / str(number),
            {
                name: (x + 0.1 * number * torch.randn(x.shape, generator=generator)).to(dtype)
                for name, x in base.items()
            },
        )
        for number in range(3)
    )
    return first, second, third


def test_the_result_is_a_model_that_transformers_loads_and_runs(tmp_path: Path, llamas: Llamas) -> None:
    recipe = whole("slerp", llamas[0], llamas[1], base_model=llamas[0], parameters={"t": 0.3}, dtype="bfloat16")
    merge_to_folder(recipe, tmp_path / "out")
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")("t4 t5 t6", return_tensors="pt")
    assert not any(report.values())
    assert model.dtype == torch.bfloat16
    assert model(**tokens).logits.isfinite().all()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "diagnostics.json",
        "diagnostics.png",
        "generation_config.json",
        "hubmerge.lock.json",
        "mergekit_config.yml",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_result_in_several_files_loads_too(tmp_path: Path, llamas: Llamas) -> None:
    result = merged(whole("passthrough", llamas[0]), tmp_path / "out", shard_bytes=5_000)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) == 5
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.equal(tensor, result[name]) for name, tensor in model.state_dict().items())


def test_stacked_layers_are_those_of_their_models(tmp_path: Path, llamas: Llamas) -> None:
    result = merged(sliced("passthrough", {llamas[0]: (0, 3)}, {llamas[1]: (1, 4)}), tmp_path / "out")
    first, second = read_tensors(llamas[0]), read_tensors(llamas[1])
    for layer, (source, own) in enumerate([(first, 0), (first, 1), (first, 2), (second, 1), (second, 2), (second, 3)]):
        name = "model.layers.{}.mlp.up_proj.weight"
        assert torch.equal(result[name.format(layer)], source[name.format(own)])
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    assert model.config.num_hidden_layers == 6


def test_a_mean_is_the_fp32_sum_rounded_once(tmp_path: Path, llamas: Llamas) -> None:
    weights = (0.5, 0.25, 0.25)  # exact factors: no order of multiplications and additions rounds differently
    recipe = whole("linear", *[(model, {"weight": weight}) for model, weight in zip(llamas, weights, strict=True)])
    a, b, c = map(read_tensors, llamas)
    result = merged(recipe, tmp_path / "out")
    for name, tensor in result.items():
        expected = 0.5 * a[name].float() + 0.25 * b[name].float() + 0.25 * c[name].float()
        assert torch.equal(tensor, expected.bfloat16()), name
    assert result.keys() == a.keys()


def test_a_slerp_is_the_formula_on_the_whole_tensor(tmp_path: Path, llamas: Llamas) -> None:
    recipe = whole("slerp", llamas[0], llamas[1], base_model=llamas[0], parameters={"t": [0, 1]})
    a, b = map(read_tensors, llamas[:2])
    for name, tensor in merged(recipe, tmp_path / "out").items():
        t = int(name.split(".")[2]) / 3 if ".layers." in name else 0
        x, y = a[name].double().flatten(), b[name].double().flatten()
        theta = torch.acos(x @ y / (x.norm() * y.norm()))
        expected = (torch.sin((1 - t) * theta) * x + torch.sin(t * theta) * y) / torch.sin(theta)
        assert ulps(tensor, expected.view_as(a[name]).bfloat16()) <= 1, name


def test_ties_is_the_formula_on_the_whole_tensor(tmp_path: Path, llamas: Llamas) -> None:
    tuned = [(model, {"weight": weight, "density": 0.4}) for model, weight in zip(llamas[1:], (1, 0.5), strict=True)]
    base, *others = map(read_tensors, llamas)
    for name, tensor in merged(whole("ties", *tuned, base_model=llamas[0]), tmp_path / "out").items():
        deltas = torch.stack([other[name].float() - base[name].float() for other in others])
        expected = base[name].double() + ties_sum(deltas.double(), [1, 0.5], density=0.4)
        assert ulps(tensor, expected.bfloat16()) <= 1, name


def ties_sum(deltas: Tensor, weights: list[float], *, density: float) -> Tensor:
    kept = torch.zeros_like(deltas)
    for delta, own in zip(deltas, kept, strict=True):
        order = delta.flatten().abs().argsort(descending=True, stable=True)[: int(density * delta.numel())]
        own.view(-1)[order] = delta.flatten()[order]
    factors = torch.tensor(weights).double().view(-1, *[1] * (deltas.dim() - 1))
    elected = (factors * kept).sign() == torch.where((factors * kept).sum(0) >= 0, 1.0, -1.0)
    divisor = (factors * elected).sum(0)
    return (factors * kept * elected).sum(0) / torch.where(divisor == 0, 1.0, divisor)


VALUES: dict[str, Any] = {"weight": 0.5, "t": 0.3, "density": 0.4, "scale": 0.7}


def values_for(method: Method) -> dict[str, Any]:
    return {name: value for name, value in VALUES.items() if method.parameter(name) is not None}


def models_for(method: Method, llamas: Llamas) -> tuple[Path, ...]:
    return llamas if method.most is None else llamas[: method.most]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_what_its_formula_gives_on_whole_tensors(tmp_path: Path, llamas: Llamas, name: str) -> None:
    method = METHODS[name]
    models = models_for(method, llamas)
    has_base = method.base is not Base.DONOR
    base = {"base_model": models[0]} if has_base else {}
    result = merged(whole(name, *models, parameters=values_for(method), seed=3, **base), tmp_path / "out")
    settings = settings_for(method, len(models) - has_base, **values_for(method))
    sources = list(map(read_tensors, models))
    for tensor_name, tensor in result.items():
        inputs = [source[tensor_name] for source in sources]
        expected = torch.from_numpy(ORACLES[name](inputs, settings, seed=3, name=tensor_name))
        close = torch.isclose(tensor.double(), expected, rtol=2**-8, atol=1e-6)
        assert close.all(), (tensor_name, (~close).sum())


@pytest.mark.parametrize("method", ["slerp", "ties", "dare_ties", "della", "model_stock"])
def test_threads_and_file_sizes_cannot_change_a_bit(tmp_path: Path, method: str) -> None:
    base, *others = big_parents(tmp_path)
    models = [base, others[0]] if method == "slerp" else [base, *others]
    recipe = whole(method, *models, base_model=base, parameters=values_for(METHODS[method]), dtype="bfloat16")
    results = [
        merged(recipe, tmp_path / f"{threads}-{shard_bytes}", threads=threads, shard_bytes=shard_bytes)
        for threads, shard_bytes in [(1, 10**9), (2, 10**9), (4, 10**9), (2, 1_000)]
    ]
    assert len(hashes(tmp_path / "2-1000", "*.safetensors")) == 2
    assert all(torch.equal(result[name], results[0][name]) for result in results[1:] for name in results[0])


def test_files_are_identical_whatever_the_number_of_threads(tmp_path: Path, llamas: Llamas) -> None:
    recipe = whole("dare_ties", *[(model, HALF) for model in llamas[1:]], base_model=llamas[0])
    for threads in (1, 4):
        merged(recipe, tmp_path / str(threads) / "out", threads=threads, shard_bytes=9_000)
    assert hashes(tmp_path / "1") == hashes(tmp_path / "4")


def test_another_seed_gives_another_random_merge(tmp_path: Path, llamas: Llamas) -> None:
    recipe = whole("dare_linear", (llamas[1], {"weight": 1, "density": 0.5}), base_model=llamas[0])
    results = [merged({**recipe, "seed": seed}, tmp_path / str(seed)) for seed in (0, 1)]
    assert not torch.equal(results[0]["lm_head.weight"], results[1]["lm_head.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_parents_of_other_precisions_keep_theirs(tmp_path: Path, dtype: torch.dtype) -> None:
    models = [write_llama(tmp_path / str(seed), seed=seed, dtype=dtype, tokenizer=False) for seed in (1, 2)]
    result = merged(whole("linear", *[(model, HALF) for model in models]), tmp_path / "out")
    a, b = map(read_tensors, models)
    assert all(torch.equal(result[name], ((a[name].float() + b[name].float()) / 2).to(dtype)) for name in a)


def test_sums_of_large_fp16_values_do_not_overflow(tmp_path: Path) -> None:
    models = [write_tensors(tmp_path / name, {"w": torch.full((4, 4), 6e4).half()}) for name in "ab"]
    mean = merged(whole("linear", *[(model, {"weight": 1}) for model in models]), tmp_path / "mean")
    arc = merged(whole("slerp", *models, base_model=models[0], parameters={"t": 0.5}), tmp_path / "arc")
    assert torch.equal(mean["w"], torch.full((4, 4), 6e4).half())
    assert torch.equal(arc["w"], mean["w"])


def test_fp64_parents_are_merged_in_fp64(tmp_path: Path) -> None:
    values = torch.tensor([1 + 2.0**-40, 1.0, 3.0], dtype=torch.float64)
    models = [write_tensors(tmp_path / name, {"w": values}) for name in "ab"]
    result = merged(whole("linear", *[(model, HALF) for model in models]), tmp_path / "out")
    assert torch.equal(result["w"], values)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_merge_into_fp64_is_computed_in_fp64(tmp_path: Path, llamas: Llamas, rounding: str) -> None:
    weights = [(model, {"weight": weight}) for model, weight in zip(llamas, (0.1, 0.2, 0.7), strict=True)]
    exact = [read_tensors(model) for model in llamas]
    recipe = whole("linear", *weights, dtype="float64", rounding=rounding)
    for name, tensor in merged(recipe, tmp_path / "out").items():
        expected = sum(weight * tensors[name].double() for weight, tensors in zip((0.1, 0.2, 0.7), exact, strict=True))
        torch.testing.assert_close(tensor, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("out_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_fp64_arithmetic_is_rounded_to_a_smaller_out_dtype(tmp_path: Path, out_dtype: str, rounding: str) -> None:
    terms = {"a": 2.0**25, "b": 1.0, "c": -(2.0**25)}
    models = [write_tensors(tmp_path / name, {"w": torch.full((4, 4), value)}) for name, value in terms.items()]
    recipe = whole("linear", *[(model, {"weight": 1}) for model in models], parameters={"normalize": False})
    result = merged({**recipe, "dtype": "float64", "out_dtype": out_dtype, "rounding": rounding}, tmp_path / "out")
    assert torch.equal(result["w"], torch.ones(4, 4, dtype=getattr(torch, out_dtype)))


def test_a_merge_that_takes_what_fp64_arithmetic_was_rounded_to_is_the_published_steps(
    tmp_path: Path, llamas: Llamas
) -> None:
    inner = {
        **whole(
            "linear", *[(model, {"weight": weight}) for model, weight in zip(llamas, (0.1, 0.2, 0.7), strict=True)]
        ),
        "dtype": "float64",
        "out_dtype": "float32",
    }
    merged(inner, tmp_path / "inner")
    weights = {"weight": 0.3}
    tree = merged(whole("linear", (inner, weights), (llamas[0], weights), dtype="float32"), tmp_path / "tree")
    steps = merged(
        whole("linear", (tmp_path / "inner", weights), (llamas[0], weights), dtype="float32"), tmp_path / "steps"
    )
    assert all(torch.equal(tensor, steps[name]) for name, tensor in tree.items())


def test_a_copy_is_the_parents_bytes_and_a_copy_to_another_dtype_its_values(tmp_path: Path, llamas: Llamas) -> None:
    source = read_tensors(llamas[0])
    same = merged(whole("passthrough", llamas[0]), tmp_path / "same")
    wider = merged(whole("passthrough", llamas[0], dtype="float32"), tmp_path / "wider")
    assert all(torch.equal(same[name], tensor) for name, tensor in source.items())
    assert all(torch.equal(wider[name], tensor.float()) for name, tensor in source.items())


def test_tensors_without_elements_and_scalars_are_merged(tmp_path: Path) -> None:
    shapes = {"empty": (0, 4), "flat": (4, 0), "scalar": ()}
    models = [
        write_tensors(tmp_path / name, {key: torch.ones(shape) for key, shape in shapes.items()}) for name in "ab"
    ]
    for method in ("linear", "ties", "slerp"):
        base = {} if method == "linear" else {"base_model": models[0]}
        result = merged(whole(method, *models, parameters=values_for(METHODS[method]), **base), tmp_path / method)
        assert {name: tuple(tensor.shape) for name, tensor in result.items()} == shapes
        assert result["scalar"] == 1


def test_integers_that_agree_are_copied(tmp_path: Path) -> None:
    steps = torch.arange(5)
    models = [write_tensors(tmp_path / name, {"steps": steps, "mask": steps > 2}) for name in "ab"]
    result = merged(whole("linear", *[(model, HALF) for model in models], dtype="float16"), tmp_path / "out")
    assert torch.equal(result["steps"], steps)
    assert torch.equal(result["mask"], steps > 2)


def test_integers_that_differ_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    models = [write_tensors(tmp_path / str(i), {"steps": torch.arange(5) + i}) for i in range(2)]
    with pytest.raises(MergeError) as caught:
        merged(whole("linear", *[(model, HALF) for model in models]), tmp_path / "out")
    assert str(caught.value) == "steps: the parents hold different values, and dtype I64 cannot be merged"
    assert caught.value.hint is not None
    assert not (tmp_path / "out").exists()


def test_what_just_the_base_has_is_carried_over(tmp_path: Path, llamas: Llamas) -> None:
    tower = {"vision_tower.weight": torch.randn(3, 3)}
    base = write_changed(tmp_path / "base", llamas[0], tower)
    recipe = whole("task_arithmetic", (llamas[1], HALF), (llamas[2], HALF), base_model=base)
    assert torch.equal(merged(recipe, tmp_path / "as-is")["vision_tower.weight"], tower["vision_tower.weight"])
    rounded = merged({**recipe, "dtype": "bfloat16"}, tmp_path / "rounded")
    assert torch.equal(rounded["vision_tower.weight"], tower["vision_tower.weight"].bfloat16())


def test_a_merged_head_is_used_although_one_parent_ties_it(tmp_path: Path, llamas: Llamas) -> None:
    tied = write_llama(tmp_path / "tied", seed=9, layers=4, tied=True)
    result = merged(whole("linear", (tied, HALF), (llamas[0], HALF)), tmp_path / "out")
    embedding, head = read_tensors(tied)["model.embed_tokens.weight"], read_tensors(llamas[0])["lm_head.weight"]
    assert torch.equal(result["lm_head.weight"], ((embedding.float() + head.float()) / 2).bfloat16())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(model.lm_head.weight, result["lm_head.weight"])


def test_weights_at_odd_places_of_a_file_are_read(tmp_path: Path) -> None:
    tensors = {"flag": torch.tensor([True]), "w": torch.arange(4.0), "x": torch.arange(4.0).bfloat16()}
    model = write_tensors(tmp_path / "model", tensors)
    packed = b'{"flag":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}' + (
        b',"w":{"dtype":"F32","shape":[4],"data_offsets":[1,17]},"x":{"dtype":"BF16","shape":[4],"data_offsets":[17,25]}}'
    )
    data = b"".join(tensor.view(torch.uint8).numpy().tobytes() for tensor in tensors.values())
    (model / "model.safetensors").write_bytes(len(packed).to_bytes(8, "little") + packed + data)
    result = merged(
        whole("linear", (model, {"weight": 1}), parameters={"normalize": False}, dtype="float32"), tmp_path / "out"
    )
    assert torch.equal(result["w"], tensors["w"])
    assert torch.equal(result["x"], tensors["w"])
    assert result["flag"]


def test_the_number_of_torch_threads_is_as_it_was_before_the_merge(tmp_path: Path, llamas: Llamas) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        merged(whole("passthrough", llamas[0]), tmp_path / "out", threads=1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
