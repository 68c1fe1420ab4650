from __future__ import annotations

from hubmerge.tokenizer.align import Rows, TokenRule, align, stand_in
from hubmerge.tokenizer.renumber import renumbered, resized, translation

BASE = Rows({"a": 0, "b": 1}, 2, is_input=True)
ONE = Rows({"a": 0, "c": 1, "d": 2}, 3, is_input=True)
TWO = Rows({"b": 0, "c": 1, "e": 2}, 2, is_input=True)
"""Its token e lies beyond its rows."""
NAMED = Rows({"e": 4, "a": 0}, 5, is_input=False)
MODELS = (BASE, ONE, TWO, NAMED)


def test_the_only_model_that_has_a_token_stands_in() -> None:
    assert stand_in("d", MODELS, base=0) == ((1, 2),)


def test_the_base_stands_in_for_what_several_have() -> None:
    assert stand_in("b", MODELS, base=0) == ((0, 1),)


def test_without_a_base_all_that_have_it_stand_in() -> None:
    assert stand_in("b", MODELS, base=None) == ((0, 1), (2, 0))
    assert stand_in("c", MODELS, base=0) == ((1, 1), (2, 1))


def test_a_model_that_is_only_named_stands_in_where_no_other_can() -> None:
    assert stand_in("e", MODELS, base=0) == ((3, 4),)
    assert stand_in("a", MODELS, base=None) == ((0, 0), (1, 0))


def test_what_nobody_has_is_empty() -> None:
    assert stand_in("z", MODELS, base=0) == ()


def test_a_model_keeps_its_own_rows_unless_a_rule_is_forced() -> None:
    vocabulary = {"a": 0, "c": 1, "z": 3}
    rules = {"a": TokenRule(((1, 0),), force=True), "c": TokenRule(((0, 0),), force=False)}
    assert align(vocabulary, 4, MODELS, own=2, base=0, rules=rules) == [((1, 0),), ((2, 1),), None, ()]
    assert align(vocabulary, 4, MODELS, own=0, base=0, rules=rules) == [((1, 0),), ((0, 0),), None, ()]


def test_a_forced_token_without_a_source_is_made_by_the_usual_rule() -> None:
    rules = {"b": TokenRule(None, force=True)}
    assert align({"b": 0}, 1, MODELS, own=2, base=0, rules=rules) == [((0, 1),)]


def test_ids_follow_their_tokens_unless_the_other_model_states_its_own() -> None:
    translate = translation({"<s>": 1, "</s>": 2, "<img>": 5}, {"<s>": 7, "<img>": 9})
    config = {
        "bos_token_id": 1,
        "eos_token_id": [2, 1],
        "pad_token_id": 2,
        "hidden_size": 2,
        "text": {"image_token_index": 5},
    }
    assert renumbered(config, {"pad_token_id": 0}, translate) == {
        "bos_token_id": 7,
        "eos_token_id": [7],
        "pad_token_id": 0,
        "hidden_size": 2,
        "text": {"image_token_index": 9},
    }


def test_vocabulary_sizes_follow_at_any_depth() -> None:
    config = {"vocab_size": 10, "hidden_size": 10, "text_config": {"vocab_size": 10, "vocab_size_per_layer_input": 8}}
    assert resized(config, {10: 12, 8: 9}) == {
        "vocab_size": 12,
        "hidden_size": 10,
        "text_config": {"vocab_size": 12, "vocab_size_per_layer_input": 9},
    }
