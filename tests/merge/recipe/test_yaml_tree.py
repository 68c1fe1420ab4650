from __future__ import annotations

import pytest

from hubmerge.merge.recipe.yaml_tree import documents
from tests.merge.recipe.recipes import SLERP, refusal

BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
MERGE_BOMB = "a: &a {" + ", ".join(f"k{n}: 1" for n in range(500)) + "}\n<<: [" + "*a, " * 500 + "*a]\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the recipe is empty"),
        ("# nothing\n---\n", "the recipe is empty"),
        ("a: [1\nb: 2\n", "line 2: not YAML: expected ',' or ']', but got ':'"),
        ("models:\n\t- model: a/b\n", "line 2: not YAML: a tab stands where YAML takes spaces only"),
        ("a: b: c\n", "line 1: not YAML: mapping values are not allowed here"),
        ("a: \x07\n", "line 1: not YAML: the character U+0007 is not allowed"),
        ("- a\n- b\n", "recipe (line 1): must be a mapping, not a list"),
        ("just\ntext\n", "recipe (line 1): must be a mapping, not text"),
        (
            "a: !!python/name:os.system x\n",
            "a (line 1): the YAML tag !!python/name:os.system is not allowed in a recipe",
        ),
        ("a: !!set {x}\n", "a (line 1): the YAML tag !!set is not allowed in a recipe"),
        ("a: !!int zz\n", "a (line 1): `zz` is not a value of the type int"),
        ("a: *b\n", "line 1: not YAML: found undefined alias 'b'"),
        ("{[a]: b}\n", "recipe (line 1): a key is text, not a list or a mapping"),
        ("a: {b: 1,\n b: 2}\n", "a.b (line 2): the key is on line 1 already"),
        ('a: {"<s>": 1,\n "<s>": 2}\n', 'a["<s>"] (line 2): the key is on line 1 already'),
        ("a: &a\n  b: *a\n", "the recipe is nested more than 100 levels deep"),
        ("\n" + "[" * 5000, "the recipe is nested more than 100 levels deep"),
        (BOMB, "the recipe has more than 200,000 values once its aliases are expanded"),
        (MERGE_BOMB, "the recipe has more than 200,000 values once its aliases are expanded"),
        ("a: &a {b: 1, <<: *a}\n", "a (line 1): `<<` takes mappings without a `<<` of their own"),
        ("\n" * 1_000_001, "a recipe has at most 1,000,000 characters, and this has 1,000,001"),
    ],
)
def test_what_is_no_yaml_or_too_much_of_it_is_refused(text: str, problem: str) -> None:
    assert refusal(text) == problem


def test_yaml_merge_keys_give_what_the_mapping_does_not_have() -> None:
    (document,) = documents("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")
    assert isinstance(document.value, dict)
    merged = document.value["b"].value
    assert isinstance(merged, dict)
    assert {key: item.value for key, item in merged.items()} == {"x": 3, "y": 2}


def test_of_several_merged_mappings_the_first_wins() -> None:
    (document,) = documents("{<<: [{x: 1}, {x: 2, y: 2}]}")
    assert isinstance(document.value, dict)
    assert {key: item.value for key, item in document.value.items()} == {"x": 1, "y": 2}


def test_the_end_of_a_document_may_be_marked() -> None:
    assert len(documents(f"---\n{SLERP}...\n---\n")) == 1
