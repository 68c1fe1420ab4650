"""Checkpoints in folders: which files count, which tensors are where, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from hubmerge.errors import HeaderError, SourceError
from hubmerge.weights.checkpoint import Checkpoint, open_checkpoint, open_checkpoints, read_header
from hubmerge.weights.files import FileEntry, LocalFiles
from hubmerge.weights.header import build_header
from hubmerge.weights.hub_files import HubFiles
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.snapshot import open_snapshot
from tests.checkpoints import write_llama
from tests.weights.range_server import REPO, SHA, RangeServer
from tests.weights.weight_files import safetensors_file, write_adapter_files, write_checkpoint


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(ModelRef(str(folder)))


def refusal(folder: Path) -> SourceError:
    with pytest.raises(SourceError) as caught:
        opened(folder)
    return caught.value


def places(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    return [(name, tensor.file) for name, tensor in checkpoint.tensors.items()]


def test_a_sharded_model_of_transformers_is_read_where_its_bytes_are(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "llama", seed=1, max_shard_size=8_000)
    checkpoint = opened(folder)
    assert len({tensor.file for tensor in checkpoint.tensors.values()}) > 1
    assert checkpoint.config["num_hidden_layers"] == 2
    assert checkpoint.notes == ()
    expected: dict[str, torch.Tensor] = {}
    for shard in folder.glob("*.safetensors"):
        expected |= safetensors.torch.load_file(shard)
    assert checkpoint.tensors.keys() == expected.keys()
    for name, tensor in checkpoint.tensors.items():
        raw = checkpoint.files.read(tensor.file, tensor.info.start, tensor.info.stop)
        assert torch.equal(
            torch.frombuffer(bytearray(raw), dtype=torch.bfloat16).view(tensor.info.shape), expected[name]
        )


def test_a_folder_has_no_commit_and_no_gate(tmp_path: Path) -> None:
    checkpoint = opened(write_checkpoint(tmp_path / "m", {"model.safetensors": ["a"]}))
    assert (checkpoint.sha, checkpoint.gated, checkpoint.private, checkpoint.card) == (None, False, False, {})
    assert checkpoint.ref == ModelRef(str(tmp_path / "m"))


def test_the_card_is_its_front_matter(tmp_path: Path) -> None:
    card = "---\nlicense: mit\ntags: [merge]\n---\n# A model\n"
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": ["a"]}, card=card)
    assert opened(folder).card == {"license": "mit", "tags": ["merge"]}


@pytest.mark.parametrize("card", ["# No front matter", "---\n[1, 2]\n---\n", "---\n{: broken\n---\n", "---\n\udce9\n"])
def test_a_card_that_cannot_be_read_is_empty(tmp_path: Path, card: str) -> None:
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": ["a"]})
    (folder / "README.md").write_bytes(card.encode(errors="surrogateescape"))
    assert opened(folder).card == {}


def test_tensors_come_in_the_order_of_files_and_data(tmp_path: Path) -> None:
    weights = {"model-00002-of-00002.safetensors": ["a"], "model-00001-of-00002.safetensors": ["z", "b"]}
    checkpoint = opened(write_checkpoint(tmp_path / "m", weights))
    assert places(checkpoint) == [
        ("z", "model-00001-of-00002.safetensors"),
        ("b", "model-00001-of-00002.safetensors"),
        ("a", "model-00002-of-00002.safetensors"),
    ]


def test_one_file_goes_before_an_index_as_in_transformers(tmp_path: Path) -> None:
    weights = {"model.safetensors": ["new"], "model-00001-of-00001.safetensors": ["old"]}
    folder = write_checkpoint(tmp_path / "m", weights, weight_map={"old": "model-00001-of-00001.safetensors"})
    checkpoint = opened(folder)
    assert places(checkpoint) == [("new", "model.safetensors")]
    assert checkpoint.notes == (
        f"{folder} has model.safetensors and model.safetensors.index.json; the first is used, as transformers does",
    )


def test_other_safetensors_files_beside_the_model_do_not_count(tmp_path: Path) -> None:
    weights = {"model-00001-of-00001.safetensors": ["a"], "consolidated.safetensors": ["a"]}
    assert places(opened(write_checkpoint(tmp_path / "m", weights))) == [("a", "model-00001-of-00001.safetensors")]


def test_a_single_file_of_another_name_counts(tmp_path: Path) -> None:
    weights = {"consolidated.safetensors": ["a"], "adapter_model.safetensors": ["lora"]}
    assert places(opened(write_checkpoint(tmp_path / "m", weights))) == [("a", "consolidated.safetensors")]


def test_an_index_of_another_name_counts(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", {"part-a.safetensors": ["a"], "part-b.safetensors": ["b"]})
    (folder / "consolidated.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part-a.safetensors"}}))
    assert places(opened(folder)) == [("a", "part-a.safetensors")]


def test_the_index_decides_between_two_copies_of_a_tensor(tmp_path: Path) -> None:
    weights = {"model-1.safetensors": ["a", "b"], "model-2.safetensors": ["b", "c"]}
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}
    checkpoint = opened(write_checkpoint(tmp_path / "m", weights, weight_map=weight_map))
    assert dict(places(checkpoint)) == weight_map
    assert checkpoint.notes == ()


def test_a_tensor_that_the_index_forgot_is_kept_and_said(tmp_path: Path) -> None:
    weights = {"model-1.safetensors": ["a", "stray"]}
    folder = write_checkpoint(tmp_path / "m", weights, weight_map={"a": "model-1.safetensors"})
    checkpoint = opened(folder)
    assert list(checkpoint.tensors) == ["a", "stray"]
    assert checkpoint.notes == (f"{folder} has tensors that its index does not name, merged all the same: stray",)


def test_two_copies_without_an_index_are_refused(tmp_path: Path) -> None:
    weights = {"model-1.safetensors": ["a"], "model-2.safetensors": ["a"]}
    folder = write_checkpoint(tmp_path / "m", weights)
    assert str(refusal(folder)) == f"{folder} has the tensor a in model-1.safetensors and in model-2.safetensors"


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", {"model-00002-of-00006.safetensors": ["a"]})
    assert str(refusal(folder)) == (
        f"{folder} lacks model-00001-of-00006.safetensors, model-00003-of-00006.safetensors, "
        "model-00004-of-00006.safetensors and 2 more"
    )


@pytest.mark.parametrize("target", ["../../secret.safetensors", "/etc/passwd", "config.json", "none.safetensors"])
def test_an_index_cannot_name_anything_but_the_models_own_weights(tmp_path: Path, target: str) -> None:
    (tmp_path / "secret.safetensors").write_bytes(safetensors_file(["a"]))
    folder = write_checkpoint(tmp_path / "x" / "m", {"model-1.safetensors": ["a"]}, weight_map={"a": target})
    assert str(refusal(folder)) == (
        f"{folder}/model.safetensors.index.json names files that are not safetensors files of it: {target}"
    )


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (b"{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"\xff", "is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[]", "is not a JSON object"),
        (b'{"weight_map": []}', "has no weight_map from tensor names to files"),
        (b"{}", "has no weight_map from tensor names to files"),
        (b'{"weight_map": {"a": 1}}', "has no weight_map from tensor names to files"),
    ],
)
def test_a_broken_index_is_refused(tmp_path: Path, index: bytes, problem: str) -> None:
    folder = write_checkpoint(tmp_path / "m", {"model-1.safetensors": ["a"]})
    (folder / "model.safetensors.index.json").write_bytes(index)
    assert str(refusal(folder)) == f"{folder}/model.safetensors.index.json {problem}"


def test_a_tensor_that_is_only_in_the_index_is_refused(tmp_path: Path) -> None:
    weight_map = {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-1.safetensors"}
    folder = write_checkpoint(tmp_path / "m", {"model-1.safetensors": ["a"]}, weight_map=weight_map)
    assert str(refusal(folder)) == (f"{folder} lacks tensors that its index names: b, c")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (b"{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[]", "is not a JSON object"),
        (b"[" * 100_000, "is not JSON: it is nested too deeply"),
        (rb'{"architectures": ["\ud800"]}', "holds text that is not valid Unicode"),
    ],
)
def test_a_broken_config_is_refused(tmp_path: Path, config: bytes, problem: str) -> None:
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": ["a"]})
    (folder / "config.json").write_bytes(config)
    assert str(refusal(folder)) == f"{folder}/config.json {problem}"


def test_a_broken_header_names_its_file(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": b"\x02\0\0\0\0\0\0\0[]"})
    error = refusal(folder)
    assert isinstance(error, HeaderError)
    assert str(error) == f"{folder}/model.safetensors: the header is not a JSON object"


def test_a_truncated_download_names_its_file(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": safetensors_file(["a"])[:-1]})
    assert str(refusal(folder)) == (f"{folder}/model.safetensors: the tensors end at byte 104 but the file has 103")


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_snapshot(ModelRef(str(tmp_path), "main"))
    assert str(caught.value) == f"`{tmp_path}` is a local folder, which has no revision `main`"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert str(refusal(tmp_path / "none")) == f"there is no folder {tmp_path}/none"


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": ["a"]})
    error = refusal(folder / "model.safetensors")
    assert str(error) == f"{folder}/model.safetensors is a file"
    assert error.hint == f"Name the folder of the checkpoint: {folder}"


def test_many_are_opened_in_their_order(tmp_path: Path) -> None:
    refs = [ModelRef(str(write_checkpoint(tmp_path / name, {"model.safetensors": [name]}))) for name in "cab"]
    checkpoints = open_checkpoints([*refs, refs[0]])
    assert list(checkpoints) == refs
    assert [list(checkpoint.tensors) for checkpoint in checkpoints.values()] == [["c"], ["a"], ["b"]]


def test_a_model_with_two_adapters_is_opened_once(tmp_path: Path) -> None:
    path = str(write_checkpoint(tmp_path / "m", {"model.safetensors": ["a"]}))
    one, two = (ModelRef(str(write_adapter_files(tmp_path / name))) for name in ("one", "two"))
    refs = [ModelRef(path), ModelRef(path, adapter=one), ModelRef(path, adapter=two)]
    checkpoints = open_checkpoints(refs)
    assert [checkpoint.ref for checkpoint in checkpoints.values()] == refs
    assert [checkpoint.adapter and checkpoint.adapter.ref for checkpoint in checkpoints.values()] == [None, one, two]
    assert len({id(checkpoint.files) for checkpoint in checkpoints.values()}) == 1


def test_all_models_that_fail_are_named_at_once_in_order(tmp_path: Path) -> None:
    good = write_checkpoint(tmp_path / "good", {"model.safetensors": ["a"]})
    empty = write_checkpoint(tmp_path / "empty", {}, config=None)
    refs = [ModelRef(f"{tmp_path}/z"), ModelRef(str(good)), ModelRef(str(empty / "x")), ModelRef(str(empty))]
    with pytest.raises(SourceError) as caught:
        open_checkpoints(refs)
    assert str(caught.value) == (
        "3 models cannot be used:\n"
        f"  - there is no folder {tmp_path}/z\n"
        f"  - there is no folder {empty}/x\n"
        f"  - {empty} is empty"
    )


def test_a_single_failure_keeps_its_hint(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", {"model.safetensors": ["a"]})
    with pytest.raises(SourceError) as caught:
        open_checkpoints([ModelRef(f"{folder}/model.safetensors")])
    assert caught.value.hint == f"Name the folder of the checkpoint: {folder}"


def test_what_was_opened_before_a_failure_is_closed(tmp_path: Path) -> None:
    good = write_checkpoint(tmp_path / "good", {"model.safetensors": ["a"]})
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    with pytest.raises(SourceError):
        open_checkpoints([ModelRef(str(good)), ModelRef(f"{tmp_path}/none")])
    assert len(list(descriptors.iterdir())) == before


def file_with_header_of(size_bytes: int) -> bytes:
    """Returns a file of one tensor whose data begins at `size_bytes`."""
    header, _ = build_header([("t", "U8", (5,))])
    padded = header[8:] + b" " * (size_bytes - len(header))
    return len(padded).to_bytes(8, "little") + padded + b"12345"


@pytest.mark.parametrize("data_start", [*range(99_990, 100_012), 200_000])
def test_headers_around_the_size_of_the_first_read_are_read_whole(tmp_path: Path, data_start: int) -> None:
    (tmp_path / "x.safetensors").write_bytes(file_with_header_of(data_start))
    header = read_header(LocalFiles(tmp_path), "x.safetensors")
    assert header.size_bytes == data_start
    assert (header.tensors[0].start, header.tensors[0].stop) == (data_start, data_start + 5)


@pytest.mark.parametrize(
    ("data_start", "ranges"),
    [
        (100, ["bytes=0-104"]),
        (99_995, ["bytes=0-99999"]),
        (100_000, ["bytes=0-99999"]),
        (100_001, ["bytes=0-99999", "bytes=100000-100000"]),
        (150_000, ["bytes=0-99999", "bytes=100000-149999"]),
    ],
)
def test_a_header_takes_one_request_or_two(data_start: int, ranges: list[str]) -> None:
    content = file_with_header_of(data_start)
    server = RangeServer({"x": content})
    files = HubFiles(REPO, SHA, entries=[FileEntry("x", len(content))], token=False, endpoint=server.endpoint)
    assert read_header(files, "x").size_bytes == data_start
    assert [request.headers["Range"] for request in server.seen] == ranges
    server.close()
