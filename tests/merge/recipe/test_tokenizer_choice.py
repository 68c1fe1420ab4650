from __future__ import annotations

import pytest

from hubmerge.merge.recipe import ModelToken, TokenChoice, TokenizerChoice, ZeroToken, load_recipe
from hubmerge.weights.reference import ModelRef
from tests.merge.recipe.recipes import SLERP, refusal


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("tokenizer_source: union", "union"),
        ("tokenizer_source: base", "base"),
        ("tokenizer_source: org/other@v1", ModelRef("org/other", "v1")),
        ("tokenizer_source: model:org/other", ModelRef("org/other")),
        ("tokenizer: {source: base}", "base"),
        ("tokenizer: {source: {path: org/other, revision: v1}}", ModelRef("org/other", "v1")),
        ("tokenizer: {}", "union"),
    ],
)
def test_a_vocabulary_is_that_of_all_of_the_base_or_of_a_model(written: str, source: object) -> None:
    assert load_recipe(f"{SLERP}{written}\n").tokenizer == TokenizerChoice(source, {}, None)  # type: ignore[arg-type]


def test_without_a_key_nothing_is_said_of_the_tokenizer() -> None:
    assert load_recipe(SLERP).tokenizer is None
    assert load_recipe(f"{SLERP}tokenizer_source: null\n").tokenizer is None


def test_tokens_have_sources_of_their_own() -> None:
    recipe = load_recipe(f"""{SLERP}\
tokenizer:
  source: union
  pad_to_multiple_of: 64
  tokens:
    <|im_start|>: {{source: org/other}}
    <|im_end|>: {{source: {{kind: model_token, model: org/base, token: </s>}}, force: true}}
    "7": {{source: {{kind: model_token, model: org/base, token_id: 2}}}}
    <pad>: {{source: {{kind: zero}}}}
    <tool>: {{force: true}}
""")
    base, other = ModelRef("org/base"), ModelRef("org/other")
    assert recipe.tokenizer == TokenizerChoice(
        "union",
        {
            "<|im_start|>": TokenChoice(other, False),
            "<|im_end|>": TokenChoice(ModelToken(base, "</s>", None), True),
            "7": TokenChoice(ModelToken(base, None, 2), False),
            "<pad>": TokenChoice(ZeroToken(), False),
            "<tool>": TokenChoice(None, True),
        },
        64,
    )


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (
            "tokenizer: {source: base}\ntokenizer_source: base",
            "tokenizer_source (line 10): tokenizer says it already; a recipe takes one of them",
        ),
        ("tokenizer: base", "tokenizer (line 9): must be a mapping, not text"),
        ("tokenizer: {pad_to_multiple_of: 0}", "tokenizer.pad_to_multiple_of (line 9): must be at least 1, not 0"),
        ("tokenizer: {sorce: base}", "tokenizer.sorce (line 9): unknown key; did you mean source?"),
        (
            "tokenizer: {tokens: {<s>: {source: {kind: nil}}}}",
            'tokenizer.tokens["<s>"].source.kind (line 9): must be model_token or zero, not nil',
        ),
        (
            "tokenizer: {tokens: {a: {source: {kind: model_token, token: b}}}}",
            "tokenizer.tokens.a.source (line 9): a model_token needs its model",
        ),
        (
            "tokenizer: {tokens: {a: {source: {kind: model_token, model: a/b}}}}",
            "tokenizer.tokens.a.source (line 9): a model_token takes either its token or its token_id",
        ),
        (
            "tokenizer: {tokens: {a: {source: {kind: model_token, model: a/b, token_id: -1}}}}",
            "tokenizer.tokens.a.source.token_id (line 9): must not be negative, and is -1",
        ),
        (
            "tokenizer: {tokens: {a: {force: 2}}}",
            "tokenizer.tokens.a.force (line 9): must be true or false, not a number",
        ),
        (
            "chat_template: chatlm",
            "chat_template (line 9): is neither Jinja nor one of auto, alpaca, chatml, exaone, llama3, mistral; "
            "did you mean chatml?",
        ),
    ],
)
def test_a_choice_that_cannot_be_is_refused(written: str, problem: str) -> None:
    assert refusal(f"{SLERP}{written}\n") == problem


@pytest.mark.parametrize("written", ["auto", "chatml", "llama3", "'{{ messages }}'"])
def test_a_chat_template_is_known_or_jinja(written: str) -> None:
    assert load_recipe(f"{SLERP}chat_template: {written}\n").chat_template == written.strip("'")
