from __future__ import annotations

import pytest

from hubmerge.lineage.names import NamedModel, named_models

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "repo_id", "revision"),
    [
        ("a/b", "a/b", None),
        (" a/b ", "a/b", None),
        ("gpt2", "gpt2", None),
        ("a/b@v1", "a/b", "v1"),
        ("https://huggingface.co/a/b", "a/b", None),
        ("https://huggingface.co/a/b/tree/v1", "a/b", "v1"),
        (f"/root/.cache/huggingface/hub/models--a--b/snapshots/{SHA}", "a/b", SHA),
        (f"C:\\Users\\me\\.cache\\huggingface\\hub\\models--a--b\\snapshots\\{SHA}\\", "a/b", SHA),
        ("models--a--b-7b", "a/b-7b", None),
        ("https://huggingface.co/datasets/a", None, None),
        ("/home/alice/secret/model", None, None),
        ("./merged", None, None),
        ("..\\merged", None, None),
        ("C:\\models\\mine", None, None),
        ("~/models/mine", None, None),
        ("a/b/c", None, None),
        ("a model of mine", None, None),
        ("a/b--c", None, None),
    ],
)
def test_a_name_is_a_repo_or_a_path(text: str, repo_id: str | None, revision: str | None) -> None:
    assert named_models(text) == (NamedModel(text.strip(), repo_id, revision),)


def test_a_model_and_its_adapter_are_two() -> None:
    assert [model.repo_id for model in named_models("a/b@v1+c/d")] == ["a/b", "c/d"]


@pytest.mark.parametrize("path", ["/home/alice/secret/model", "C:\\alice\\model", "/home/alice/model/"])
def test_of_a_path_only_the_last_part_is_shown(path: str) -> None:
    assert named_models(path)[0].title == "model"
