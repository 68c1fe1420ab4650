from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tokenizers

from hubmerge.errors import SourceError
from hubmerge.tokenizer import Tokenizer, read_tokenizer
from hubmerge.tokenizer.read import FLAGS
from hubmerge.tokenizer.unite import Additions, extend, unite
from hubmerge.weights.files import LocalFiles
from tests.vocabularies import ENGLISH, GERMAN, bpe, unigram, wordpiece

Train = Callable[..., tokenizers.Tokenizer]
ENGLISH_TEXT, GERMAN_TEXT = "the cats sat on a mat", "die Katze und der Hund rennen"


def stored(folder: Path, tokenizer: tokenizers.Tokenizer) -> Tokenizer:
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    found = read_tokenizer(LocalFiles(folder))
    assert found is not None
    return found


def running(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer.data))


def union_of(
    tmp_path: Path, train: Train, *texts: Sequence[str], **options: object
) -> tuple[list[Tokenizer], Tokenizer]:
    parts = [stored(tmp_path / str(number), train(text, **options)) for number, text in enumerate(texts)]
    return parts, unite(parts[0], parts[1:])


@pytest.mark.parametrize("train", [bpe, unigram, wordpiece])
def test_ids_are_those_that_the_library_gives(tmp_path: Path, train: Train) -> None:
    real = train(ENGLISH, added=["<|im_end|>", "<tool>"])
    assert dict(stored(tmp_path / "one", real).ids) == real.get_vocab()


@pytest.mark.parametrize("train", [bpe, unigram, wordpiece])
def test_a_union_has_every_token_and_the_first_ones_ids(tmp_path: Path, train: Train) -> None:
    (first, second), union = union_of(tmp_path, train, ENGLISH, GERMAN, added=["<|im_end|>"])
    assert set(union.ids) == set(first.ids) | set(second.ids)
    assert {token: union.ids[token] for token in first.ids} == dict(first.ids)
    assert list(union.ids.values()) == list(range(len(union.ids)))


@pytest.mark.parametrize("train", [bpe, unigram, wordpiece])
def test_the_library_gives_a_union_the_ids_that_rows_are_laid_out_by(tmp_path: Path, train: Train) -> None:
    _, union = union_of(tmp_path, train, ENGLISH, GERMAN, added=["<|im_end|>"])
    assert running(union).get_vocab() == dict(union.ids)


@pytest.mark.parametrize(
    ("train", "text"), [(t, x) for t in (bpe, unigram, wordpiece) for x in (ENGLISH_TEXT, GERMAN_TEXT)]
)
def test_texts_of_all_models_survive_a_union(tmp_path: Path, train: Train, text: str) -> None:
    _, union = union_of(tmp_path, train, ENGLISH, GERMAN)
    assert running(union).decode(running(union).encode(text).ids) == text


@pytest.mark.parametrize("train", [bpe, unigram, wordpiece])
def test_tokens_of_other_models_are_produced(tmp_path: Path, train: Train) -> None:
    (first, _), union = union_of(tmp_path, train, ENGLISH, GERMAN)
    tokens = running(union).encode(GERMAN_TEXT).tokens
    assert any(token not in first.ids for token in tokens)
    assert len(tokens) < len(running(first).encode(GERMAN_TEXT).tokens) or train is wordpiece


def test_an_added_token_of_another_model_is_found_whole_and_stays_special(tmp_path: Path) -> None:
    first = stored(tmp_path / "first", bpe(ENGLISH))
    second = stored(tmp_path / "second", bpe(ENGLISH, added=["<|im_start|>"]))
    union = running(unite(first, [second]))
    encoded = union.encode("<|im_start|>the cat", add_special_tokens=False)
    assert encoded.tokens[0] == "<|im_start|>"
    assert union.decode(encoded.ids) == "the cat"


def test_a_union_with_nothing_new_is_the_tokenizer_itself(tmp_path: Path) -> None:
    first, again = stored(tmp_path / "first", bpe(ENGLISH)), stored(tmp_path / "again", bpe(ENGLISH))
    assert unite(first, [again]) is first


def test_merges_written_as_text_count_as_the_same_merges(tmp_path: Path) -> None:
    first, second = stored(tmp_path / "first", bpe(ENGLISH)), stored(tmp_path / "second", bpe(ENGLISH))
    second.data["model"]["merges"] = [" ".join(pair) for pair in second.data["model"]["merges"]]  # type: ignore[index]
    assert unite(first, [second]) is first


def test_tokens_of_another_kind_get_ids_but_change_no_splitting(tmp_path: Path) -> None:
    first, second = stored(tmp_path / "first", bpe(ENGLISH)), stored(tmp_path / "second", unigram(GERMAN))
    union = unite(first, [second])
    assert (str(first.kind), str(second.kind)) == ("byte-level BPE", "Unigram")
    assert set(second.ids) <= set(union.ids)
    assert running(union).encode(ENGLISH_TEXT).ids == running(first).encode(ENGLISH_TEXT).ids


def test_added_tokens_that_only_the_config_states_are_tokens_too(tmp_path: Path) -> None:
    stored(tmp_path / "model", bpe(ENGLISH, size=60))
    decoder = {"60": {"content": "<a>", "special": True}}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    found = read_tokenizer(LocalFiles(tmp_path / "model"))
    assert found is not None
    assert found.ids["<a>"] == len(found.ids) - 1
    assert found.added["<a>"]["special"] is True
    extended = extend(found, Additions(added={"<b>": dict.fromkeys(FLAGS, False)}))
    assert extended.config["added_tokens_decoder"][str(extended.ids["<b>"])]["content"] == "<b>"


def test_ids_of_added_tokens_are_the_librarys_whatever_the_file_says(tmp_path: Path) -> None:
    vocabulary = {"a": 0, "b": 1}
    added = [{"id": 10, "content": "<x>", **dict.fromkeys(FLAGS, False)}]
    content = {
        "version": "1.0",
        "added_tokens": added,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    found = read_tokenizer(LocalFiles(tmp_path))
    assert found is not None
    assert (
        dict(found.ids) == tokenizers.Tokenizer.from_str(json.dumps(content)).get_vocab() == {"a": 0, "b": 1, "<x>": 2}
    )


def test_no_tokenizer_is_none(tmp_path: Path) -> None:
    assert read_tokenizer(LocalFiles(tmp_path)) is None


def test_a_vocabulary_without_tokenizer_json_cannot_be_united(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "tokenizer.model").write_bytes(b"sentencepiece")
    found = read_tokenizer(LocalFiles(slow))
    assert found is not None
    with pytest.raises(SourceError) as caught:
        unite(stored(tmp_path / "fast", bpe(ENGLISH)), [found])
    assert str(caught.value) == (
        f"{slow} has no tokenizer.json, and its vocabulary cannot be compared with others without one"
    )
    assert caught.value.hint == (
        "Convert it once, and put the files that this writes beside the weights: "
        "transformers.AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)"
    )


def test_a_tokenizer_json_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError) as caught:
        read_tokenizer(LocalFiles(tmp_path))
    assert str(caught.value) == f"{tmp_path}/tokenizer.json has no vocabulary"
