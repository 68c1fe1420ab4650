"""The metadata of a README as the Hub reads it."""

from __future__ import annotations

import pytest

from hubmerge.localhub.cards import metadata, relation, tags, validate


def readme(front_matter: str) -> str:
    return f"---\n{front_matter}\n---\n# A model\n"


@pytest.mark.parametrize(
    ("front_matter", "errors"),
    [
        ("license: mit\nlanguage: no\nbase_model: a/b\ntags: [merge]", ()),
        ("base_model:\n- a/b\n- gpt2\nbase_model_relation: merge", ()),
        ("- a\n- b", ("YAML metadata must be a mapping",)),
        ("license: 1", ('"license" must be a string or a list of strings',)),
        ("language: {a: b}", ('"language" must be a string or a list of strings',)),
        ("license_name: Big Corp", ('"license_name" must match /^[a-z0-9-.]+$/',)),
        ("base_model_relation: sibling", ('"base_model_relation" must be one of adapter, finetune, merge, quantized',)),
        (
            "base_model: ./models/mine",
            ('"base_model" with value "./models/mine" is not valid. Use a model id from https://hf.co/models.',),
        ),
        (
            "base_model: [a/b, C:\\models]",
            ('"base_model" with value "C:\\models" is not valid. Use a model id from https://hf.co/models.',),
        ),
        ("base_model: {a: b}", ('"base_model" must be a string or a list of strings',)),
    ],
)
def test_faults_in_the_metadata_are_named(front_matter: str, errors: tuple[str, ...]) -> None:
    assert validate(readme(front_matter)).errors == errors


def test_yaml_that_cannot_be_parsed_is_an_error() -> None:
    (error,) = validate(readme("a: [")).errors
    assert error.startswith("YAML metadata cannot be parsed: ")


@pytest.mark.parametrize("content", ["", "# Only text\n", "---\n---\n", "text\n---\nlicense: mit\n---\n"])
def test_missing_metadata_is_a_warning(content: str) -> None:
    verdict = validate(content)
    assert (verdict.errors, verdict.warnings) == ((), ("empty or missing yaml metadata in repo card",))


def test_byte_order_marks_and_windows_lines_do_no_harm() -> None:
    assert metadata("\ufeff---\r\nlicense: mit\r\n---\r\ntext") == {"license": "mit"}


@pytest.mark.parametrize(
    ("front_matter", "expected"),
    [
        ("score: .nan", {"score": None}),
        ("date: 2024-02-03", {"date": "2024-02-03"}),
        ("2024-02-03: x\na: 1", {"a": 1}),
        ("a: &b [*b]", {}),
        ("date: 2024-06-31", {}),
        ("- a", {}),
    ],
)
def test_metadata_that_json_cannot_hold_does_no_harm(front_matter: str, expected: dict[str, object]) -> None:
    assert metadata(readme(front_matter)) == expected


@pytest.mark.parametrize(
    ("card", "files", "expected"),
    [
        ({"base_model": "a/b"}, [], "finetune"),
        ({"base_model": ["a/b", "c/d"]}, [], "merge"),
        ({"base_model": ["a/b"], "base_model_relation": "merge"}, [], "merge"),
        ({"base_model": "a/b"}, ["adapter_config.json"], "adapter"),
        ({"base_model": "a/b"}, ["m.Q4_K_M.gguf"], "quantized"),
    ],
)
def test_the_relation_is_declared_or_inferred(card: dict[str, object], files: list[str], expected: str) -> None:
    assert relation(card, files) == expected


def test_tags_name_parents_licence_and_library() -> None:
    card = {"license": "mit", "tags": ["merge"], "base_model": ["a/b", "c/d"], "language": "en", "datasets": ["x/y"]}
    assert tags(card, {"model_type": "llama"}, ["model.safetensors"]) == [
        "transformers",
        "safetensors",
        "llama",
        "merge",
        "en",
        "dataset:x/y",
        "base_model:a/b",
        "base_model:c/d",
        "base_model:merge:a/b",
        "base_model:merge:c/d",
        "license:mit",
        "region:us",
    ]
