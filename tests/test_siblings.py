from __future__ import annotations

import json
from copy import deepcopy
from itertools import islice

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.siblings import (
    TASKS,
    Example,
    Schedule,
    accuracy,
    draw_examples,
    encode_for_training,
    make_tokenizer,
    model_card,
    new_model,
    save_sibling,
    train,
    tune,
)

TWO_STEPS = Schedule(steps=2, learning_rate=1e-3, decay=True)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def base(tokenizer):
    return new_model(tokenizer, seed=1)


@pytest.fixture(scope="module")
def tuned(base, tokenizer):
    return tune(base, tokenizer, "sort", seed=1, schedule=TWO_STEPS)


@pytest.fixture(scope="module")
def folder(tuned, tokenizer, tmp_path_factory):
    card = model_card("sort", task="sort", base_model="local/base")
    return save_sibling(tuned, tokenizer, tmp_path_factory.mktemp("siblings") / "sort", card=card)


@pytest.mark.parametrize(("task", "answer"), [("reverse", "cabfde"), ("sort", "abcdef"), ("swap", "debfca")])
def test_a_task_is_a_function_of_the_word(task, answer):
    assert TASKS[task]("edfbac") == answer


def test_examples_take_the_tasks_in_turn_and_depend_on_the_seed_alone():
    drawn = list(islice(draw_examples(("sort", "swap"), seed=7), 4))

    assert [example.question.partition(":")[0] for example in drawn] == ["sort", "swap", "sort", "swap"]
    assert drawn == list(islice(draw_examples(("sort", "swap"), seed=7), 4))
    assert drawn != list(islice(draw_examples(("sort", "swap"), seed=8), 4))


def test_training_text_is_what_the_chat_template_renders(tokenizer):
    messages = [{"role": "user", "content": "sort: edfbac"}, {"role": "assistant", "content": "abcdef"}]

    input_ids, _ = encode_for_training(tokenizer, [Example("sort: edfbac", "abcdef")])

    assert tokenizer.decode(input_ids[0]) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(input_ids[0]) == "<s><user>sort: edfbac<assistant>abcdef</s>"


def test_labels_cover_the_answer_and_its_end_alone(tokenizer):
    _, labels = encode_for_training(tokenizer, [Example("sort: edfbac", "abcdef")])

    assert tokenizer.decode(labels[0][labels[0] != -100]) == "abcdef</s>"


def test_tuning_changes_a_copy_and_repeats_to_the_bit(base, tokenizer, tuned):
    before = base.lm_head.weight.clone()

    again = tune(base, tokenizer, "sort", seed=1, schedule=TWO_STEPS)

    assert torch.equal(base.lm_head.weight, before)
    assert not torch.equal(tuned.lm_head.weight, before)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again.parameters(), tuned.parameters(), strict=True))


def test_a_new_model_leaves_the_global_random_state_alone(tokenizer):
    state = torch.random.get_rng_state()

    new_model(tokenizer, seed=3)

    assert torch.equal(torch.random.get_rng_state(), state)


def test_tuning_lowers_the_loss(base, tuned, tokenizer):
    examples = list(islice(draw_examples(("sort",), seed=2), 64))
    input_ids, labels = encode_for_training(tokenizer, examples)

    assert tuned(input_ids=input_ids, labels=labels).loss < base(input_ids=input_ids, labels=labels).loss


def test_training_counts_its_steps(base, tokenizer):
    assert list(train(deepcopy(base), tokenizer, ("sort", "swap"), TWO_STEPS, seed=1)) == [1, 2]


def test_accuracy_is_the_share_of_exact_answers(tokenizer):
    assert accuracy(new_model(tokenizer, seed=1), tokenizer, "sort", 8) == 0.0


def test_a_saved_sibling_loads_with_the_auto_classes_in_bf16(folder, tuned, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(folder)
    loaded_tokenizer = AutoTokenizer.from_pretrained(folder)

    assert torch.equal(model.lm_head.weight, tuned.lm_head.weight.bfloat16())
    assert loaded_tokenizer("sort: abc</s>").input_ids == tokenizer("sort: abc</s>").input_ids
    assert loaded_tokenizer.chat_template == tokenizer.chat_template


def test_a_saved_sibling_has_shards_and_an_index(folder):
    index = json.loads((folder / "model.safetensors.index.json").read_text())

    assert sorted(set(index["weight_map"].values())) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_a_tuned_siblings_card_names_its_licence_and_its_base(folder):
    card = ModelCard.load(folder / "README.md")

    assert card.data.to_dict() == {
        "license": "apache-2.0",
        "base_model": "local/base",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
    }


def test_the_bases_card_names_no_base():
    assert "base_model" not in ModelCard(model_card("base")).data.to_dict()
