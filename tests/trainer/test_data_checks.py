from __future__ import annotations

from typing import Any

import pytest

from hubmerge.errors import DataError
from hubmerge.trainer.data_checks import TokenisedPair, check_tokenizer, report, tokenised
from tests.trainer.tokenizers_made import NO_SYSTEM, character_tokenizer

TALK: dict[str, Any] = {
    "prompt": [{"role": "user", "content": "2+2?"}],
    "chosen": [{"role": "assistant", "content": "four"}],
    "rejected": [{"role": "assistant", "content": "5"}],
}
TEXT = {"prompt": "2+2=", "chosen": "four", "rejected": "5"}


def pair(prompt: int, chosen: int, rejected: int = 1, *, is_prefix: bool = True, ends: bool = True) -> TokenisedPair:
    return TokenisedPair(prompt, chosen, rejected, is_prefix=is_prefix, ends=ends)


def test_conversation_is_counted_with_its_template() -> None:
    counted = tokenised(TALK, character_tokenizer())
    assert counted == pair(len("_user\n2+2?_\n_assistant\n"), len("four_\n"), len("5_\n"))
    assert counted.tokens == counted.prompt + counted.chosen


def test_text_gets_its_end_token() -> None:
    assert tokenised(TEXT, character_tokenizer(None)) == pair(4, 5, 2)


def test_template_that_ends_with_another_token_is_seen() -> None:
    assert not tokenised(TALK, character_tokenizer(eos_token="<pad>")).ends


def test_template_that_renders_the_prompt_otherwise_is_seen() -> None:
    template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    counted = tokenised(TALK, character_tokenizer(template))
    assert (counted.prompt, counted.is_prefix) == (len("2+2?_"), False)


def test_counts_are_those_of_the_template_applied_to_messages() -> None:
    tokenizer = character_tokenizer()
    prompt = tokenizer.apply_chat_template(TALK["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    chosen = tokenizer.apply_chat_template(TALK["prompt"] + TALK["chosen"], return_dict=True)["input_ids"]
    counted = tokenised(TALK, tokenizer)
    assert counted.prompt == len(prompt)
    assert counted.prompt + counted.chosen == len(chosen)


def test_conversations_need_a_template() -> None:
    with pytest.raises(DataError) as error:
        check_tokenizer(character_tokenizer(None), TALK)
    assert str(error.value) == "the data are conversations and the model's tokenizer has no chat template"
    check_tokenizer(character_tokenizer(None), TEXT)


def test_tokenizer_without_end_is_refused() -> None:
    with pytest.raises(DataError) as error:
        check_tokenizer(character_tokenizer(eos_token=None), TEXT)
    assert str(error.value) == "the model's tokenizer has no end-of-sequence token, so answers would never end"


def test_template_that_refuses_a_system_message_is_a_sentence() -> None:
    with_system = {**TALK, "prompt": [{"role": "system", "content": "be short"}, *TALK["prompt"]]}
    with pytest.raises(DataError) as error:
        tokenised(with_system, character_tokenizer(NO_SYSTEM))
    assert str(error.value) == "the model's chat template refuses a conversation of the data: no system role"


def test_report_says_what_a_length_costs() -> None:
    found = report([pair(10, 5), pair(10, 25), pair(40, 5), pair(10, 6)], max_length=30, eos_token="</s>")
    assert (found.dropped, found.cut, found.tokens[1.0], found.tokens[0.5]) == (0.25, 0.25, 45, 16)
    assert found.warnings == (
        "25.0% of the pairs are dropped, as their prompt alone has 30 tokens or more",
        "25.0% of the pairs are longer than 30 tokens and lose the end of an answer",
    )


def test_report_warns_of_templates_and_lengths_that_mislead() -> None:
    found = report([pair(5, 9, is_prefix=False, ends=False)] * 50, max_length=100, eos_token="</s>")
    assert found.warnings == (
        "of 100% of the prompts the chat template makes other tokens alone than with an answer behind them; "
        "the model is trained on another context than it will see",
        "of 100% of the pairs an answer does not end with </s>; the model may not learn to stop",
        "the chosen answer is the longer one in 100% of the pairs, so length may be learned for quality",
    )


def test_length_at_which_no_pair_is_left_is_refused() -> None:
    with pytest.raises(DataError) as error:
        report([pair(40, 5)], max_length=30, eos_token="</s>")
    assert (str(error.value), error.value.hint) == (
        "every prompt has 30 tokens or more, so no pair is left to train on",
        "The longest pair has 45 tokens: raise max_length or take others.",
    )
