"""Models with different tokenizers, merged token by token: rows, configs, files, and the card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from hubmerge.errors import PlanError, SourceError
from hubmerge.merge.explain import parent_role, tensor_groups
from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.normalise import normalised_recipe
from hubmerge.merge.pipeline import merge_to_folder, plan_recipe
from hubmerge.weights.reference import parse_reference
from tests.checkpoints import numbered_tokens, read_tensors, write_llama, write_tokenizer
from tests.merge.merging import WEIGHTS_ONLY, merged
from tests.merge.recipes import sliced, whole
from tests.vocabularies import ENGLISH, GERMAN, bpe, edit_json, unigram, write_tokenized

Models = tuple[Path, Path, Path]
TABLES = ("model.embed_tokens.weight", "lm_head.weight")
CHATML = "{{ messages[0].content }}<|im_end|>"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """An English model, a German one, and one of both whose embedding is padded."""
    folder = tmp_path_factory.mktemp("tokenized")
    return (
        write_tokenized(folder / "english", bpe(ENGLISH, added=["<|im_end|>"]), seed=1),
        write_tokenized(folder / "german", bpe(GERMAN, added=["<|im_start|>", "<|im_end|>"]), seed=2, template=CHATML),
        write_tokenized(folder / "both", bpe(ENGLISH + GERMAN, size=110), seed=3, padding=5),
    )


def linear(*models: Path, **top: Any) -> dict[str, Any]:
    return whole("linear", *((model, {"weight": n + 1}) for n, model in enumerate(models)), dtype="float32", **top)


def vocabulary(folder: Path) -> dict[str, int]:
    found: dict[str, int] = AutoTokenizer.from_pretrained(folder).get_vocab()
    return found


def rows_by_token(folder: Path, name: str) -> dict[str, Tensor]:
    table = read_tensors(folder)[name]
    return {token: table[row] for token, row in vocabulary(folder).items()}


def expected(token: str, tables: list[dict[str, Tensor]], *, base: int | None) -> Tensor:
    """Returns the row of a linear merge with weights 1, 2, ... by the rule of the recipe language."""
    owners = [table for table in tables if token in table]
    from_base = [tables[base]] if base is not None and token in tables[base] else []
    donors = owners if len(owners) == 1 else from_base or owners
    stand_in = torch.stack([table[token] for table in donors]).mean(0)
    weighted = [(n + 1) * table.get(token, stand_in) for n, table in enumerate(tables)]
    return torch.stack(weighted).sum(0) / sum(range(1, len(tables) + 1))


@pytest.mark.parametrize("base", [None, 0, 2])
@pytest.mark.parametrize("name", TABLES)
def test_a_union_merges_row_by_row_by_the_rule(tmp_path: Path, models: Models, name: str, base: int | None) -> None:
    top = {} if base is None else {"base_model": models[base]}
    merge_to_folder(linear(*models, tokenizer={"source": "union"}, **top), tmp_path / "out", options=WEIGHTS_ONLY)
    tables = [rows_by_token(model, name) for model in models]
    result = rows_by_token(tmp_path / "out", name)
    assert set(result) == {token for table in tables for token in table}
    for token, row in result.items():
        torch.testing.assert_close(row, expected(token, tables, base=base), rtol=1e-5, atol=1e-6)


def test_the_union_loads_speaks_both_languages_and_runs(tmp_path: Path, models: Models) -> None:
    merge_to_folder(linear(*models, tokenizer={"source": "union"}), tmp_path / "out", options=WEIGHTS_ONLY)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    assert model.config.vocab_size == len(tokenizer) == model.get_input_embeddings().weight.shape[0]
    for text in ("the dog ran", "der Hund und die Katze rennen"):
        tokens = tokenizer(text, return_tensors="pt")
        assert tokens.input_ids[0, 0] == model.config.bos_token_id
        assert tokenizer.decode(tokens.input_ids[0], skip_special_tokens=True) == text
        assert model(**tokens).logits.isfinite().all()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 3)


@pytest.mark.parametrize("source", ["base", 1])
def test_the_vocabulary_of_one_model_is_taken_as_its_files_are(tmp_path: Path, models: Models, source: Any) -> None:
    owner = models[0] if source == "base" else models[source]
    choice = {"source": source if source == "base" else str(owner)}
    merge_to_folder(linear(*models, base_model=models[0], tokenizer=choice), tmp_path / "out", options=WEIGHTS_ONLY)
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (owner / "tokenizer.json").read_bytes()
    tables = [rows_by_token(model, TABLES[0]) for model in models]
    for token, row in rows_by_token(tmp_path / "out", TABLES[0]).items():
        torch.testing.assert_close(row, expected(token, tables, base=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "Qwen2Tokenizer"])
def test_a_tokenizer_class_that_rebuilds_its_tokenizer_numbers_it_the_same(
    tmp_path: Path, models: Models, name: str
) -> None:
    english = shutil.copytree(models[0], tmp_path / "english")
    edit_json(english, "tokenizer_config.json", tokenizer_class=name)
    merge_to_folder(linear(english, models[1], tokenizer={"source": "union"}), tmp_path / "out", options=WEIGHTS_ONLY)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    file = json.loads((tmp_path / "out/tokenizer.json").read_text())
    assert name in type(tokenizer).__name__
    assert file["model"]["vocab"].items() <= tokenizer.get_vocab().items()
    assert tokenizer.decode(tokenizer("der Hund").input_ids, skip_special_tokens=True) == "der Hund"


def test_special_ids_are_those_of_the_model_whose_vocabulary_it_is(tmp_path: Path, models: Models) -> None:
    german = shutil.copytree(models[1], tmp_path / "german")
    end = vocabulary(german)["<|im_end|>"]
    edit_json(german, "config.json", eos_token_id=end)
    edit_json(german, "generation_config.json", eos_token_id=[end, 2], temperature=0.5)
    merge_to_folder(linear(models[0], german, tokenizer_source=str(german)), tmp_path / "out", options=WEIGHTS_ONLY)
    config = json.loads((tmp_path / "out/config.json").read_text())
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert (config["eos_token_id"], generation["eos_token_id"], generation["bos_token_id"]) == (end, [end, 2], 1)
    assert "temperature" not in generation


def test_tokens_have_the_embeddings_that_the_recipe_gives_them(tmp_path: Path, models: Models) -> None:
    english, german, both = models
    tokens = {
        "<|im_start|>": {"source": str(german), "force": True},
        "<|im_end|>": {"source": {"kind": "zero"}, "force": True},
        "<tool>": {"source": {"kind": "model_token", "model": str(both), "token": "</s>"}},
        "<think>": {"source": {"kind": "model_token", "model": str(both), "token_id": 9}},
    }
    choice = {"source": "base", "tokens": tokens, "pad_to_multiple_of": 64}
    result = merged(linear(english, german, base_model=english, tokenizer=choice), tmp_path / "out")
    ids = vocabulary(tmp_path / "out")
    for name in TABLES:
        other = {model: read_tensors(model)[name] for model in models}
        start = other[german][vocabulary(german)["<|im_start|>"]]
        torch.testing.assert_close(result[name][ids["<|im_start|>"]], start, rtol=1e-6, atol=1e-6)
        assert not result[name][ids["<|im_end|>"]].any()
        torch.testing.assert_close(result[name][ids["<tool>"]], other[both][2], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(result[name][ids["<think>"]], other[both][9], rtol=1e-6, atol=1e-6)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").tokenize("<tool><|im_start|>") == ["<tool>", "<|im_start|>"]


def test_padding_rows_are_the_mean_of_the_others(tmp_path: Path, models: Models) -> None:
    choice = {"source": "union", "pad_to_multiple_of": 64}
    result = merged(linear(*models, tokenizer=choice), tmp_path / "out")
    tokens = len(vocabulary(tmp_path / "out"))
    table = result[TABLES[0]]
    assert (tokens, table.shape) == (100, (128, 16))
    torch.testing.assert_close(table[tokens:], table[:tokens].mean(0).expand(28, 16), rtol=1e-4, atol=1e-5)
    assert json.loads((tmp_path / "out/config.json").read_text())["vocab_size"] == 128


def test_a_padded_embedding_is_cut_to_the_rows_that_all_have(tmp_path: Path, models: Models) -> None:
    padded = write_tokenized(tmp_path / "padded", bpe(ENGLISH, added=["<|im_end|>"]), seed=7, padding=8)
    plan = plan_recipe(linear(padded, models[0]))
    assert plan.notes == (
        f"vocabulary: the tokenizers are the same, but embeddings are padded (64 rows in {padded}); "
        "the 56 rows that all have are merged",
    )
    result = merged(linear(padded, models[0]), tmp_path / "out")
    longer, shorter = (read_tensors(model)[TABLES[0]] for model in (padded, models[0]))
    torch.testing.assert_close(result[TABLES[0]], (longer[:56] + 2 * shorter) / 3, rtol=1e-6, atol=1e-6)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.vocab_size == 56


def test_different_vocabularies_without_a_choice_are_refused_with_the_line_to_add(models: Models) -> None:
    with pytest.raises(PlanError) as caught:
        plan_recipe(linear(models[0], models[1]))
    assert caught.value.problems == (
        f"model.embed_tokens.weight: shapes differ: 56x16 in {models[0]}, 63x16 in {models[1]}",
        f"lm_head.weight: shapes differ: 56x16 in {models[0]}, 63x16 in {models[1]}",
    )
    assert caught.value.hint == (
        "The models have different vocabularies. To merge them token by token, add this line to the recipe: "
        "tokenizer: {source: union}"
    )


def test_a_token_that_its_source_lacks_is_a_problem(models: Models) -> None:
    tokens = {
        "<x>": {"source": str(models[0])},
        "<y>": {"source": {"kind": "model_token", "model": str(models[1]), "token": "<z>"}},
    }
    with pytest.raises(PlanError) as caught:
        plan_recipe(linear(models[0], models[1], tokenizer={"source": "union", "tokens": tokens}))
    assert caught.value.problems == (
        f'tokenizer.tokens["<x>"]: {models[0]} has no token <x>',
        f'tokenizer.tokens["<y>"]: {models[1]} has no token <z>',
    )


def test_a_model_may_be_named_for_its_tokenizer_alone(tmp_path: Path, models: Models) -> None:
    english, german, both = models
    plan = plan_recipe(linear(english, both, tokenizer_source=str(german)))
    assert [parent.label for parent in plan.parents] == [str(english), str(both), str(german)]
    assert parent_role(plan.recipe, parse_reference(str(german))) == "tokenizer"
    result = merged(linear(english, both, tokenizer_source=str(german)), tmp_path / "out")
    row = vocabulary(german)["<|im_start|>"]
    torch.testing.assert_close(result[TABLES[0]][row], read_tensors(german)[TABLES[0]][row], rtol=1e-6, atol=1e-6)


def test_tied_and_untied_models_are_merged_by_token(tmp_path: Path, models: Models) -> None:
    tied = write_tokenized(tmp_path / "tied", bpe(GERMAN), seed=4, tied=True)
    merge_to_folder(linear(models[0], tied, tokenizer_source="union"), tmp_path / "out", options=WEIGHTS_ONLY)
    head, embeds = rows_by_token(tmp_path / "out", TABLES[1]), rows_by_token(tied, TABLES[0])
    token = next(token for token in embeds if token not in vocabulary(models[0]))
    torch.testing.assert_close(head[token], embeds[token], rtol=1e-6, atol=1e-6)


def test_what_a_tied_head_lacks_comes_from_the_heads_of_others(tmp_path: Path, models: Models) -> None:
    tied = write_tokenized(tmp_path / "tied", bpe(GERMAN), seed=4, tied=True)
    merge_to_folder(linear(tied, models[0], tokenizer_source="union"), tmp_path / "out", options=WEIGHTS_ONLY)
    token = next(token for token in vocabulary(models[0]) if token not in vocabulary(tied))
    for table in TABLES:
        rows, given = (rows_by_token(folder, table) for folder in (tmp_path / "out", models[0]))
        torch.testing.assert_close(rows[token], given[token], rtol=1e-6, atol=1e-6)


def test_layers_stacked_from_two_models_have_one_vocabulary(tmp_path: Path, models: Models) -> None:
    recipe = sliced("passthrough", {models[0]: (0, 2)}, {models[1]: (0, 2)}, tokenizer={"source": "union"})
    merge_to_folder(recipe, tmp_path / "out", options=WEIGHTS_ONLY)
    embeds, head = (rows_by_token(tmp_path / "out", name) for name in TABLES)
    assert torch.equal(embeds["<|im_start|>"], rows_by_token(models[1], TABLES[0])["<|im_start|>"])
    assert torch.equal(head["<|im_end|>"], rows_by_token(models[1], TABLES[1])["<|im_end|>"])
    assert len(head) == len(embeds) == len(vocabulary(models[0]) | vocabulary(models[1]))


def test_layers_stacked_from_two_vocabularies_are_refused(models: Models) -> None:
    with pytest.raises(PlanError) as caught:
        plan_recipe(sliced("passthrough", {models[0]: (0, 2)}, {models[1]: (0, 2)}))
    assert str(caught.value) == "lm_head.weight: has 63 rows, but model.embed_tokens.weight has 56"
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("tokenizer: {source: union}")


def test_a_merge_with_a_vocabulary_of_its_own_is_an_input_like_any_other(tmp_path: Path, models: Models) -> None:
    inner = linear(models[0], models[1], tokenizer={"source": "union"})
    tree = merged(linear(inner, models[2], tokenizer_source="union"), tmp_path / "tree")  # type: ignore[arg-type]
    merge_to_folder(inner, tmp_path / "inner", options=WEIGHTS_ONLY)
    steps = merged(linear(tmp_path / "inner", models[2], tokenizer_source="union"), tmp_path / "steps")
    assert vocabulary(tmp_path / "tree") == vocabulary(tmp_path / "steps")
    for name, tensor in steps.items():
        torch.testing.assert_close(tree[name], tensor, rtol=1e-5, atol=1e-6)


def test_different_kinds_of_tokenizers_are_noted(tmp_path: Path, models: Models) -> None:
    other = write_tokenized(tmp_path / "unigram", unigram(GERMAN), seed=5)
    plan = plan_recipe(linear(models[0], other, tokenizer={"source": "union"}))
    assert plan.notes == (
        f"vocabulary: {other} has a Unigram tokenizer, {models[0]} a byte-level BPE one: tokens that only the former "
        "has get rows, but texts are split as by the latter",
    )


def test_tokens_beyond_every_embedding_are_noted_and_zero(tmp_path: Path, models: Models) -> None:
    short = shutil.copytree(models[0], tmp_path / "short")
    write_llama(short, seed=9, vocab=55, dtype=torch.float32, tokenizer=False)
    assert plan_recipe(linear(short, tokenizer={"source": "base"})).notes == (
        "vocabulary: no model has an embedding for 1 token of the vocabulary, whose rows are zeros: <|im_end|>",
    )
    result = merged(linear(short, tokenizer={"source": "base"}), tmp_path / "out")
    assert result[TABLES[0]].shape == (56, 16)
    assert not result[TABLES[0]][55].any()


def test_a_model_without_a_tokenizer_is_taken_to_have_the_others(tmp_path: Path, models: Models) -> None:
    bare = write_llama(tmp_path / "bare", seed=6, vocab=56, dtype=torch.float32, tokenizer=False)
    plan = plan_recipe(linear(models[0], bare, tokenizer={"source": "union"}))
    assert plan.notes == (f"vocabulary: {bare} has no tokenizer; it is taken to have that of {models[0]}",)


def test_a_vocabulary_of_a_model_that_has_none_is_refused(tmp_path: Path, models: Models) -> None:
    bare = write_llama(tmp_path / "bare", seed=6, vocab=56, dtype=torch.float32, tokenizer=False)
    with pytest.raises(SourceError) as caught:
        plan_recipe(linear(bare, models[0], tokenizer={"source": "union"}))
    assert str(caught.value) == f"{bare} has no tokenizer, and the recipe wants the result to have its vocabulary"
    assert caught.value.hint == "Name a model with a tokenizer: tokenizer: {source: org/name}"


def test_one_slow_tokenizer_in_all_models_needs_no_conversion(tmp_path: Path) -> None:
    slow = [write_llama(tmp_path / str(seed), seed=seed, tokenizer=False) for seed in range(2)]
    for folder in slow:
        (folder / "tokenizer.model").write_bytes(b"sentencepiece")
    merge_to_folder(linear(*slow, tokenizer={"source": "union"}), tmp_path / "out", options=WEIGHTS_ONLY)
    assert (tmp_path / "out/tokenizer.model").read_bytes() == b"sentencepiece"
    (slow[1] / "tokenizer.model").write_bytes(b"another")
    with pytest.raises(SourceError, match=r"has no tokenizer\.json, and its vocabulary cannot be compared"):
        plan_recipe(linear(*slow, tokenizer={"source": "union"}))


def test_files_of_the_old_vocabulary_do_not_stay_beside_the_new_one(tmp_path: Path, models: Models) -> None:
    english = shutil.copytree(models[0], tmp_path / "english")
    (english / "tokenizer.model").write_bytes(b"old")
    (english / "added_tokens.json").write_text("{}")
    merge_to_folder(linear(english, models[1], tokenizer={"source": "union"}), tmp_path / "out", options=WEIGHTS_ONLY)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json"} <= names
    assert not {"tokenizer.model", "added_tokens.json"} & names


@pytest.mark.parametrize(
    ("wanted", "template", "said"),
    [
        ("auto", CHATML, "that of german, the most common among the parents"),
        ("{{ messages[0].content }}", "{{ messages[0].content }}", "the recipe's own"),
        ("chatml", None, "chatml"),
    ],
)
def test_the_result_has_the_chat_template_that_the_recipe_asks_for(
    tmp_path: Path, models: Models, wanted: str, template: str | None, said: str
) -> None:
    recipe = linear(*models, tokenizer={"source": "union"}, chat_template=wanted)
    merge_to_folder(recipe, tmp_path / "out", options=WEIGHTS_ONLY)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == template or (template is None and "<|im_start|>" in tokenizer.chat_template)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "the cat"}], tokenize=False)
    assert "the cat" in text
    card = " ".join((tmp_path / "out/README.md").read_text().split())
    assert (
        "The tokenizer comes from english, with the tokens that german and both have besides "
        f"and has a chat template: {said}."
    ) in card


def test_the_base_counts_once_among_templates(tmp_path: Path, models: Models) -> None:
    others = [shutil.copytree(models[1], tmp_path / str(n)) for n in range(3)]
    (others[0] / "chat_template.jinja").write_text("{{ 'base' }}")
    plan = plan_recipe(linear(*others, base_model=others[0], chat_template="auto"))
    assert plan.tokenizer.chat_template == CHATML


def test_a_template_replaces_the_one_in_the_tokenizer_config(tmp_path: Path, models: Models) -> None:
    german = shutil.copytree(models[1], tmp_path / "german")
    (german / "chat_template.jinja").unlink(missing_ok=True)
    edit_json(german, "tokenizer_config.json", chat_template=CHATML)
    merge_to_folder(linear(german, chat_template="llama3"), tmp_path / "out", options=WEIGHTS_ONLY)
    assert "chat_template" not in json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert "<|eot_id|>" in AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


def test_the_plan_says_what_is_merged_by_token_and_writes_it_out_in_full(models: Models) -> None:
    tokens = {
        "<t>": {"source": {"kind": "zero"}},
        "<u>": {"source": {"kind": "model_token", "model": str(models[2]), "token_id": 3}},
    }
    choice = {"source": "union", "tokens": tokens, "pad_to_multiple_of": 8}
    plan = plan_recipe(linear(models[0], models[1], tokenizer=choice, chat_template="auto"))
    assert next((group.names, group.made_by) for group in tensor_groups(plan)) == (TABLES, "linear by token")
    assert parent_role(plan.recipe, parse_reference(str(models[2]))) == "embeddings of tokens"
    assert fingerprint(plan_recipe(normalised_recipe(plan))) == fingerprint(plan)


@pytest.mark.parametrize("changed", [{"source": "base"}, {"source": "union", "pad_to_multiple_of": 64}])
def test_the_vocabulary_is_part_of_the_fingerprint(models: Models, changed: dict[str, Any]) -> None:
    first = fingerprint(plan_recipe(linear(models[0], models[1], tokenizer={"source": "union"})))
    assert fingerprint(plan_recipe(linear(models[0], models[1], tokenizer=changed))) != first
    assert fingerprint(plan_recipe(linear(models[0], models[1], tokenizer={"source": "union"}))) == first


def test_vocabularies_of_equal_size_with_other_tokens_are_warned_about(tmp_path: Path) -> None:
    first = write_llama(tmp_path / "first", seed=1, vocab=8)
    second = write_llama(tmp_path / "second", seed=2, vocab=8)
    write_tokenizer(second, [*numbered_tokens(6), "t7", "t6"])
    note = (
        f"vocabulary: 2 ids mean other tokens in {second} than in {first} (6 is t6 in {first} and t7 in {second}), and "
        "rows are merged by id; tokenizer: {source: union} merges them by token"
    )
    assert plan_recipe(linear(first, second)).notes == (note,)
    assert plan_recipe(linear(first, second, tokenizer={"source": "union"})).notes == ()


def test_a_tokenizer_that_cannot_be_read_is_no_reason_to_refuse_a_merge_without_one(tmp_path: Path) -> None:
    first, second = (write_llama(tmp_path / str(seed), seed=seed, vocab=8) for seed in (1, 2))
    (second / "tokenizer.json").write_text("{")
    assert plan_recipe(linear(first, second)).notes == ()
