from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from hubmerge.merge.recipe.tokenizer_choice import CHAT_TEMPLATES
from hubmerge.tokenizer.templates import known_template, most_common
from tests.vocabularies import ENGLISH, bpe

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
]

RENDERED = {
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] Be brief.\n\nHi [/INST] Hello.</s>[INST] Bye [/INST]",
    "alpaca": "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello.</s>\n\n"
    "### Instruction:\nBye\n\n### Response:\n",
    "exaone": "[|system|]Be brief.[|endofturn|]\n[|user|]Hi\n[|assistant|]Hello.[|endofturn|]\n"
    "[|user|]Bye\n[|assistant|]",
}


@pytest.mark.parametrize("name", RENDERED)
def test_a_known_template_writes_a_talk_as_its_models_expect_it(name: str) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe(ENGLISH), bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = known_template(name)
    assert tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True) == RENDERED[name]


def test_every_name_of_the_recipe_language_is_known() -> None:
    assert {"auto", *RENDERED} == set(CHAT_TEMPLATES)


def test_jinja_is_no_known_name() -> None:
    assert known_template("{{ messages }}") is None


def test_the_most_common_template_wins_and_among_equals_the_first() -> None:
    assert most_common(["a", "b", " b\n"]) == "b"
    assert most_common(["a", "b"]) == "a"
    assert most_common([]) is None
