from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubmerge.errors import SourceError
from hubmerge.weights.reference import ModelRef, parse_reference

SHA = "221e5f92f9dc5fedaf4556b1be6b20642638643c"


def refusal(source: Any) -> str:
    with pytest.raises(SourceError) as caught:
        parse_reference(source)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("org/name", ModelRef("org/name")),
        ("gpt2", ModelRef("gpt2")),
        (" org/name@main ", ModelRef("org/name", "main")),
        ("org/name@refs/pr/1", ModelRef("org/name", "refs/pr/1")),
        ("org/name+org/lora", ModelRef("org/name", adapter=ModelRef("org/lora"))),
        ("org/name@v1+org/lora@v2", ModelRef("org/name", "v1", ModelRef("org/lora", "v2"))),
        ("org/name+./lora", ModelRef("org/name", adapter=ModelRef("./lora"))),
        ("/models/llama/", ModelRef("/models/llama")),
        (r"C:\models\mistral-7b", ModelRef(r"C:\models\mistral-7b")),
        ("D:/my models/mistral", ModelRef("D:/my models/mistral")),
        (f"~/.cache/hub/models--org--some-name/snapshots/{SHA}", ModelRef("org/some-name", SHA)),
        (rf"D:\hub\models--org--some-name\snapshots\{SHA}", ModelRef("org/some-name", SHA)),
        (f"/hub/models--gpt2/snapshots/{SHA}/", ModelRef("gpt2", SHA)),
        ({"path": "org/name", "revision": "v1"}, ModelRef("org/name", "v1")),
        ({"model": "org/name", "lora": {"path": "org/lora"}}, ModelRef("org/name", adapter=ModelRef("org/lora"))),
        ({"model": {"path": "org/name", "revision": 2}}, ModelRef("org/name", "2")),
        ({"model": "org/name@v1", "lora": None}, ModelRef("org/name", "v1")),
    ],
)
def test_every_form_of_a_reference_is_read_and_its_short_form_means_the_same(written: Any, meant: ModelRef) -> None:
    reference = parse_reference(written)
    assert reference == meant
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("", "`` is neither a Hub id (`org/name`) nor a folder on this machine"),
        ("a/b/c", "`a/b/c` is neither a Hub id (`org/name`) nor a folder on this machine"),
        ("org/na--me", "`org/na--me` is neither a Hub id (`org/name`) nor a folder on this machine"),
        ("$MODELS/x", "`$MODELS/x` is neither a Hub id (`org/name`) nor a folder on this machine"),
        ("org/name@", "`` is not a revision (a branch, tag or commit) of `org/name`"),
        ("org/name@a..b", "`a..b` is not a revision (a branch, tag or commit) of `org/name`"),
        ("a/b+c/d+e/f", "`a/b+c/d+e/f` names 2 adapters; a model takes one"),
        ({"revision": "main"}, "a model's mapping needs its `path`"),
        ({"path": "a/b", "sha": "1"}, "`sha` is not a key of a model; it has `path` and `revision`"),
        ({"model": "a/b", "adapter": "c/d"}, "`adapter` is not a key of a model; it has `model` and `lora`"),
        ({"model": ["a/b"]}, "a model is a name or a mapping, not `['a/b']`"),
    ],
)
def test_what_is_no_reference_is_refused_in_one_sentence(written: Any, problem: str) -> None:
    assert refusal(written) == problem


def test_an_existing_folder_is_local_unless_a_revision_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_reference("org/name").is_local
    assert not parse_reference("org/name@main").is_local
    assert not parse_reference("org/other").is_local


def test_a_folder_keeps_the_signs_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "c++@home"
    folder.mkdir()
    assert parse_reference(str(folder)) == ModelRef(str(folder))
    assert parse_reference(f"org/name+{tmp_path}") == ModelRef("org/name", adapter=ModelRef(str(tmp_path)))


@pytest.mark.parametrize(("text", "path"), [("/ \\", "/"), ("/a/ \\", "/a"), ("/a//", "/a"), ("/", "/")])
def test_what_ends_a_path_without_naming_anything_is_dropped(text: str, path: str) -> None:
    assert parse_reference(text) == ModelRef(path)


def test_the_home_folder_is_expanded_only_to_read_it() -> None:
    reference = parse_reference("~/models/x")
    assert reference.path == "~/models/x"
    assert reference.folder == Path.home() / "models" / "x"


@given(st.text(max_size=40) | st.text(alphabet="ab/@+.~\\:-_ ", max_size=20))
def test_any_text_is_a_reference_that_can_be_written_again_or_is_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except SourceError:
        return
    assert parse_reference(str(reference)) == reference
