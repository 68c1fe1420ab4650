from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import DataError
from hubmerge.localhub import LocalHub
from hubmerge.trainer.data import find_columns, held_out_keys, left_out, load_preferences, sample
from hubmerge.trainer.dataset_source import all_rows, first_rows, open_dataset
from hubmerge.trainer.settings import DatasetSource, Evaluation

NONE_HELD_OUT = Evaluation(holdout=0.0)


def rows(count: int, *, word: str = "q") -> list[dict[str, Any]]:
    return [{"prompt": f"{word}{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(count)]


def write_jsonl(path: Path, content: Sequence[dict[str, Any]]) -> DatasetSource:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return DatasetSource(str(path))


def push_dataset(hub: LocalHub, repo_id: str, files: dict[str, bytes]) -> str:
    api = HfApi(token=hub.token)
    api.create_repo(repo_id, repo_type="dataset", exist_ok=True)
    for name, content in files.items():
        api.upload_file(path_or_fileobj=io.BytesIO(content), path_in_repo=name, repo_id=repo_id, repo_type="dataset")
    return str(api.dataset_info(repo_id).sha)


def jsonl(content: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in content).encode()


def prompts(dataset: Any) -> list[str]:
    return list(dataset["prompt"])


@pytest.fixture(scope="module")
def served(hub: LocalHub) -> str:
    card = b"---\nlicense: apache-2.0\n---\n# Pairs\n"
    files = {"README.md": card, "train.jsonl": jsonl(rows(20)), "test.jsonl": jsonl(rows(3, word="t"))}
    push_dataset(hub, "local/pairs", files)
    return "local/pairs"


def test_repo_is_pinned_with_its_licence_and_the_files_of_one_split(served: str, hub: LocalHub) -> None:
    opened = open_dataset(DatasetSource(served), token=hub.token)
    assert opened.sha == HfApi(token=hub.token).dataset_info(served).sha
    assert (opened.licence, opened.gated, opened.split, opened.reader) == ("apache-2.0", False, "train", "json")
    assert [name.rpartition("/")[2] for name in opened.files] == ["train.jsonl"]
    assert opened.sha in opened.files[0]


def test_first_rows_and_all_rows_are_of_the_pinned_commit(served: str, hub: LocalHub) -> None:
    opened = open_dataset(DatasetSource(served), token=hub.token)
    HfApi(token=hub.token).upload_file(
        path_or_fileobj=io.BytesIO(jsonl(rows(1, word="new"))),
        path_in_repo="train.jsonl",
        repo_id=served,
        repo_type="dataset",
    )
    assert [row["prompt"] for row in first_rows(opened, 2, token=hub.token)] == ["q0", "q1"]
    assert len(all_rows(opened, token=hub.token)) == 20


def test_other_splits_are_not_downloaded(hub: LocalHub) -> None:
    push_dataset(hub, "local/two", {"train.jsonl": jsonl(rows(5)), "test.jsonl": jsonl(rows(3, word="t"))})
    opened = open_dataset(DatasetSource("local/two", split="test"), token=hub.token)
    assert prompts(all_rows(opened, token=hub.token)) == ["t0", "t1", "t2"]


def test_missing_repo_split_and_revision_are_sentences(served: str, hub: LocalHub) -> None:
    with pytest.raises(DataError) as missing:
        open_dataset(DatasetSource("local/nothing"), token=hub.token)
    assert str(missing.value) == (
        "there is no data set local/nothing on the Hub, or it is private and the token may not read it"
    )
    with pytest.raises(DataError) as split:
        open_dataset(DatasetSource(served, split="dev"), token=hub.token)
    assert (str(split.value), split.value.hint) == (
        "local/pairs has no split dev",
        "Name one with `split:`: train, test.",
    )
    with pytest.raises(DataError) as revision:
        open_dataset(DatasetSource(served, revision="old"), token=hub.token)
    assert str(revision.value) == "the data set local/pairs has no revision 'old'"


def test_file_that_is_missing_or_no_data_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError) as missing:
        open_dataset(DatasetSource(str(tmp_path / "no.jsonl")))
    assert str(missing.value) == f"cannot read the data set {tmp_path}/no.jsonl: No such file or directory"
    with pytest.raises(DataError, match="is neither a data set's id"):
        open_dataset(DatasetSource(str(tmp_path / "pairs.txt")))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_files_of_each_kind_give_the_same_pairs(suffix: str, tmp_path: Path) -> None:
    from datasets import Dataset

    made = Dataset.from_list(rows(4))
    path = tmp_path / f"pairs.{suffix}"
    {"jsonl": made.to_json, "csv": made.to_csv, "parquet": made.to_parquet}[suffix](str(path))
    preferences = load_preferences([open_dataset(DatasetSource(str(path)))], NONE_HELD_OUT, chat=False)
    assert preferences.train.to_list() == rows(4)


def test_bad_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    good = rows(3)
    same = {"prompt": "x", "chosen": "same", "rejected": "same"}
    source = write_jsonl(tmp_path / "pairs.jsonl", [*good, same, good[0], {**good[1], "chosen": ""}])
    preferences = load_preferences([open_dataset(source)], NONE_HELD_OUT, chat=True)
    assert len(preferences.train) == 3
    assert preferences.problems == {
        source.path: {"chosen and rejected are the same": 1, "the same pair again": 1, "chosen is empty": 1}
    }


def test_rows_that_are_left_out_are_told(tmp_path: Path) -> None:
    first = rows(1)[0]
    turned = {**first, "chosen": first["rejected"], "rejected": first["chosen"]}
    source = write_jsonl(tmp_path / "pairs.jsonl", [first, turned, {**first, "chosen": ""}])
    preferences = load_preferences([open_dataset(source)], NONE_HELD_OUT, chat=True)
    assert list(left_out(preferences)) == [
        f"{source.path}: left out 1 of its rows: chosen is empty",
        "2 pairs stand the other way round elsewhere in the data",
    ]


def test_pairs_that_contradict_each_other_are_counted(tmp_path: Path) -> None:
    first = rows(1)[0]
    turned = {**first, "chosen": first["rejected"], "rejected": first["chosen"]}
    source = write_jsonl(tmp_path / "pairs.jsonl", [first, turned])
    assert load_preferences([open_dataset(source)], NONE_HELD_OUT, chat=True).contradictions == 2


def test_held_out_prompts_are_never_trained_on_and_do_not_depend_on_the_order(tmp_path: Path) -> None:
    content = rows(40) + [{**row, "chosen": "another good one"} for row in rows(40)]
    forwards = open_dataset(write_jsonl(tmp_path / "a.jsonl", content))
    backwards = open_dataset(write_jsonl(tmp_path / "b.jsonl", content[::-1]))
    quarter = Evaluation(holdout=0.25)
    first = load_preferences([forwards], quarter, chat=False)
    second = load_preferences([backwards], quarter, chat=False)
    assert len(first.held_out) == 20
    assert sorted(prompts(first.held_out)) == sorted(prompts(second.held_out))
    assert not set(prompts(first.held_out)) & set(prompts(first.train))


def test_held_out_pairs_are_limited_in_number() -> None:
    keys = [f"{n:04x}" for n in range(100)]
    assert len(held_out_keys(keys, share=0.5, most=7)) == 7
    assert held_out_keys(keys, share=0.0, most=7) == set()
    assert held_out_keys(["a", "a"], share=0.5, most=7) == set()


def test_data_sets_are_spread_evenly_by_their_weights(tmp_path: Path) -> None:
    many = write_jsonl(tmp_path / "many.jsonl", rows(8))
    few = DatasetSource(write_jsonl(tmp_path / "few.jsonl", rows(2, word="few")).path, weight=2.0)
    opened = [open_dataset(many), open_dataset(few)]
    words = [prompt[0] for prompt in prompts(load_preferences(opened, NONE_HELD_OUT, chat=False).train)]
    assert "".join(words) == "qfqqfqqfqqfq"
    half = DatasetSource(many.path, weight=0.5)
    assert 0 < len(load_preferences([open_dataset(half)], NONE_HELD_OUT, chat=False).train) < 8


def test_conversations_and_text_are_not_mixed(tmp_path: Path) -> None:
    talk = [{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": x}]} for x in "bc"]
    conversations = write_jsonl(tmp_path / "talk.jsonl", [{**talk[0], "rejected": talk[1]["chosen"]}])
    text = write_jsonl(tmp_path / "text.jsonl", rows(1))
    with pytest.raises(DataError) as error:
        load_preferences([open_dataset(conversations), open_dataset(text)], NONE_HELD_OUT, chat=False)
    assert str(error.value) == (
        f"{text.path} is plain text and others are conversations, which cannot be trained on together"
    )


def test_missing_columns_bring_a_mapping_to_try(tmp_path: Path) -> None:
    content = [{"instruction": "2+2?", "preferred_answer": "4", "dispreferred": "5"}]
    opened = open_dataset(write_jsonl(tmp_path / "pairs.jsonl", content))
    with pytest.raises(DataError) as error:
        sample(opened, chat=True)
    assert str(error.value) == f"{opened.source.path} has no column chosen and no column rejected"
    assert error.value.hint == (
        "Perhaps `columns: {chosen: preferred_answer, rejected: dispreferred}`. "
        "It has dispreferred, instruction, preferred_answer."
    )


def test_own_column_names_are_used() -> None:
    source = DatasetSource("a/b", columns={"prompt": "q", "chosen": "w", "rejected": "l"})
    assert find_columns(source, ["q", "w", "l", "id"]) == {"prompt": "q", "chosen": "w", "rejected": "l"}
    with pytest.raises(DataError, match="a/b has no column q"):
        find_columns(source, ["w", "l"])
    with pytest.raises(DataError, match="prompt, chosen, rejected and system, not prmpt"):
        find_columns(DatasetSource("a/b", columns={"prmpt": "q"}), ["q"])


def test_data_without_a_preference_are_refused_before_a_download(tmp_path: Path) -> None:
    same = [{"prompt": f"x{n}", "chosen": "same", "rejected": "same"} for n in range(3)]
    with pytest.raises(DataError) as error:
        sample(open_dataset(write_jsonl(tmp_path / "pairs.jsonl", same)), chat=True)
    assert str(error.value) == (
        f"no row of {tmp_path}/pairs.jsonl is a preference; of 3 it is said: chosen and rejected are the same"
    )


def test_unknown_preset_brings_its_likely_name(tmp_path: Path) -> None:
    source = DatasetSource("a/b", preset="Intel/orca-dpo-pairs")
    with pytest.raises(DataError) as error:
        find_columns(source, ["prompt"])
    assert str(error.value) == "no preset is called Intel/orca-dpo-pairs; did you mean Intel/orca_dpo_pairs?"


def test_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError) as error:
        sample(open_dataset(DatasetSource(str(tmp_path / "empty.jsonl"))), chat=True)
    assert str(error.value) == f"{tmp_path}/empty.jsonl has no rows in the split train"


def test_gated_data_set_names_the_page_of_its_terms(hub: LocalHub) -> None:
    push_dataset(hub, "local/gated", {"train.jsonl": jsonl(rows(2))})
    HfApi(token=hub.token).update_repo_settings("local/gated", repo_type="dataset", gated="manual")
    with pytest.raises(DataError) as error:
        sample(open_dataset(DatasetSource("local/gated"), token=False), chat=True, token=False)
    assert str(error.value) == "the data set local/gated is gated"
    assert error.value.hint == f"Accept its terms at {hub.endpoint}/datasets/local/gated."


def test_data_set_with_several_configurations_asks_for_one(hub: LocalHub) -> None:
    card = b"---\nconfigs:\n- {config_name: a, data_files: a.jsonl}\n- {config_name: b, data_files: b.jsonl}\n---\n"
    files = {"README.md": card, "a.jsonl": jsonl(rows(2)), "b.jsonl": jsonl(rows(3))}
    push_dataset(hub, "local/configs", files)
    with pytest.raises(DataError) as error:
        open_dataset(DatasetSource("local/configs"), token=hub.token)
    assert str(error.value) == "local/configs has several configurations: a, b"
    assert error.value.hint == "Name one with `config:`."
    opened = open_dataset(DatasetSource("local/configs", config="b"), token=hub.token)
    assert len(all_rows(opened, token=hub.token)) == 3
