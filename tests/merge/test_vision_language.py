"""The language part of a model with eyes, merged with models that have none; the rest is carried over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from hubmerge.errors import PlanError
from hubmerge.merge.expr import Merge
from hubmerge.merge.pipeline import plan_recipe
from tests.architectures import GEMMA, GROUPED, MODELS, gemma3_vl, llama, llava, logits_of, qwen2_vl
from tests.checkpoints import numbered_tokens, read_tensors, write_changed, write_model, write_tokenizer
from tests.merge.merging import merged
from tests.merge.recipes import sliced, whole

HALF = {"weight": 0.5}
LLAVA_PREFIX = "language_model."


def gemma3() -> PreTrainedModel:
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**GEMMA))


def qwen2() -> PreTrainedModel:
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**GROUPED, tie_word_embeddings=False))


PAIRS: dict[str, tuple[Callable[[], PreTrainedModel], Callable[[], PreTrainedModel], str]] = {
    "llava": (llava, llama, LLAVA_PREFIX),
    "gemma3": (gemma3_vl, gemma3, LLAVA_PREFIX),
    "qwen2-vl": (qwen2_vl, qwen2, ""),
}


def write(folder: Path, model: PreTrainedModel, *, seed: int) -> Path:
    return write_model(folder, model, seed=seed, dtype=torch.float32)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a LLaVA with the settings of its image processor."""
    folder = write(tmp_path_factory.mktemp("vlm") / "llava", llava(), seed=1)
    (folder / "preprocessor_config.json").write_text('{"do_resize": true}')
    return folder


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("llm") / "llama", llama(), seed=2)


def loaded(folder: Path) -> PreTrainedModel:
    model, report = transformers.LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model


@pytest.mark.parametrize("pair", PAIRS)
def test_a_plain_language_model_is_merged_into_the_language_part(tmp_path: Path, pair: str) -> None:
    make_seeing, make_blind, prefix = PAIRS[pair]
    eyes, text = make_seeing(), make_blind()
    first, second = write(tmp_path / "vlm", eyes, seed=1), write(tmp_path / "llm", text, seed=2)
    result = merged(whole("linear", (first, HALF), (second, HALF)), tmp_path / "out")
    a, b = read_tensors(first), read_tensors(second)
    assert result.keys() == a.keys()
    assert {prefix + name for name in b} < a.keys()
    for name, tensor in result.items():
        plain = b.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        assert torch.equal(tensor, a[name] if plain is None else (a[name] + plain) / 2), name
    model, report = type(eyes).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    assert logits_of(model).isfinite().all()


def test_the_plan_says_what_is_matched_and_what_is_carried_over(seeing: Path, blind: Path) -> None:
    plan = plan_recipe(whole("slerp", seeing, blind, base_model=seeing, parameters={"t": 0.5}))
    assert plan.notes == (
        f"names: text_decoder: the names differ (model.layers.* in {blind} and language_model.model.layers.* in "
        f"{seeing}); tensors are matched by what follows",
        f"multi_modal_projector (4 tensors): carried over from {seeing}: {blind} has none",
        f"vision_tower (2 layers, 39 tensors): carried over from {seeing}: {blind} has none",
    )
    assert [(made.module.name, made.method, made.tensors) for made in plan.modules] == [
        ("text_decoder", "slerp", 30),
        ("multi_modal_projector", None, 4),
        ("vision_tower", None, 39),
    ]


def test_processor_files_and_the_config_are_the_seeing_model_s(tmp_path: Path, seeing: Path, blind: Path) -> None:
    merged(whole("linear", (blind, HALF), (blind, HALF), base_model=seeing), tmp_path / "out")
    assert (tmp_path / "out" / "preprocessor_config.json").read_text() == '{"do_resize": true}'
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llava"


def test_a_base_that_gives_its_eyes_alone_is_not_merged(tmp_path: Path, seeing: Path, blind: Path) -> None:
    result = merged(whole("linear", (blind, HALF), base_model=seeing), tmp_path / "out")
    eyes, text = read_tensors(seeing), read_tensors(blind)
    for name, tensor in result.items():
        source = text if name.startswith(LLAVA_PREFIX) else eyes
        assert torch.equal(tensor, source[name.removeprefix(LLAVA_PREFIX)]), name
    loaded(tmp_path / "out")


def test_a_plain_base_leaves_the_eyes_out_and_says_so(tmp_path: Path, seeing: Path, blind: Path) -> None:
    recipe = whole("task_arithmetic", (seeing, HALF), base_model=blind)
    assert merged(recipe, tmp_path / "out").keys() == read_tensors(blind).keys()
    left_out = f"left out: {blind}, which gives the result its shape, lacks what {seeing} has"
    assert plan_recipe(recipe).notes[1:] == (
        f"multi_modal_projector (4 tensors): {left_out}",
        f"vision_tower (2 layers, 39 tensors): {left_out}",
    )


def test_slices_and_gradients_count_the_language_layers(tmp_path: Path, seeing: Path, blind: Path) -> None:
    merged(sliced("passthrough", {seeing: (0, 2)}, {blind: (1, 3)}), tmp_path / "tall")
    taller = loaded(tmp_path / "tall").config
    assert (taller.text_config.num_hidden_layers, taller.vision_config.num_hidden_layers) == (4, 2)
    plan = plan_recipe(whole("slerp", seeing, blind, base_model=seeing, parameters={"t": [0, 1]}))
    queries = [t.expr for t in plan.tensors if t.info.name.startswith(LLAVA_PREFIX) and "q_proj" in t.info.name]
    assert [expr.settings.shared["t"] for expr in queries if isinstance(expr, Merge)] == [0, 0.5, 1]


def test_two_that_see_and_one_that_does_not_need_modules(tmp_path: Path, seeing: Path, blind: Path) -> None:
    other = write(tmp_path / "other", llava(), seed=3)
    with pytest.raises(PlanError) as caught:
        plan_recipe(whole("linear", (seeing, HALF), (other, HALF), (blind, HALF)))
    assert caught.value.problems == (
        f"multi_modal_projector: {other} has this module, {blind} not; say under modules what it is made of",
        f"vision_tower: {other} has this module, {blind} not; say under modules what it is made of",
    )


def test_tokens_that_the_seeing_model_adds_keep_their_rows(tmp_path: Path) -> None:
    eyes = write_changed_vocabulary(tmp_path, rows=34)
    text = write_tokenizer(write(tmp_path / "llm", llama(), seed=2), numbered_tokens(32))
    recipe = whole("linear", (eyes, HALF), (text, HALF), tokenizer={"source": "base"}, base_model=eyes)
    result = merged(recipe, tmp_path / "out")
    own, plain = read_tensors(eyes), read_tensors(text)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        table = own[LLAVA_PREFIX + name]
        expected = torch.cat([(table[:32] + plain[name]) / 2, table[32:]])
        torch.testing.assert_close(result[LLAVA_PREFIX + name], expected)
    assert loaded(tmp_path / "out").config.text_config.vocab_size == 34


def write_changed_vocabulary(tmp_path: Path, *, rows: int) -> Path:
    """Returns a LLaVA whose tokenizer has tokens that a Llama's lacks."""
    model = llava()
    model.resize_token_embeddings(rows)
    return write_tokenizer(write(tmp_path / "vlm", model, seed=1), numbered_tokens(rows))


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
def test_a_checkpoint_without_the_prefix_of_its_class_is_merged_with_one_that_has_it(
    tmp_path: Path, architecture: str
) -> None:
    prefix = {"gpt2": "transformer.", "bert": "bert."}[architecture]
    first = write(tmp_path / "first", MODELS[architecture](), seed=1)
    second = write(tmp_path / "second", MODELS[architecture](), seed=2)
    a, b = read_tensors(first), read_tensors(second)
    bare = write_changed(
        tmp_path / "bare",
        second,
        {**dict.fromkeys(b), **{name.removeprefix(prefix): tensor for name, tensor in b.items()}},
    )
    result = merged(whole("linear", (first, HALF), (bare, HALF)), tmp_path / "out")
    assert result.keys() == a.keys()
    for name, tensor in result.items():
        assert torch.equal(tensor, (a[name] + b[name]) / 2), name
