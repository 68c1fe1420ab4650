"""Headers: hostile ones as literal bytes, honest ones against the safetensors library."""

from __future__ import annotations

import json
import struct
from contextlib import suppress

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hubmerge.errors import HeaderError
from hubmerge.weights.header import (
    ITEM_BITS,
    MAX_JSON_BYTES,
    TensorInfo,
    build_header,
    header_length,
    item_size,
    parse_header,
)


def file_of(json_text: bytes | str, data: bytes = b"") -> bytes:
    text = json_text if isinstance(json_text, bytes) else json_text.encode()
    return struct.pack("<Q", len(text)) + text + data


def refusal(raw: bytes, *, file_size: int | None = None) -> str:
    with pytest.raises(HeaderError) as caught:
        parse_header(raw, file_size=len(raw) if file_size is None else file_size)
    return str(caught.value)


HOSTILE = {
    b"": "the file has 0 bytes, too few for a safetensors header",
    b"\x02\x00\x00\x00\x00\x00\x00": "the file has 7 bytes, too few for a safetensors header",
    b"\x02\x00\x00\x00\x00\x00\x00\x00": "the header claims 2 bytes but the whole file has 8",
    b"\xff\xff\xff\xff\xff\xff\xff\xff{}": (
        "the header claims 18446744073709551615 bytes; the safetensors format allows 100000000"
    ),
    b"\x00\x00\x00\x00\x00\x00\x00\x00": "the header is not JSON: Expecting value: line 1 column 1 (char 0)",
    b"\x01\x00\x00\x00\x00\x00\x00\x00\xff": "the header is not UTF-8: byte 0 cannot be decoded",
    b"\x02\x00\x00\x00\x00\x00\x00\x00[]": "the header is not a JSON object",
    b"\x04\x00\x00\x00\x00\x00\x00\x00null": "the header is not a JSON object",
    b"\x01\x00\x00\x00\x00\x00\x00\x00{": (
        "the header is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    ),
    b"\x06\x00\x00\x00\x00\x00\x00\x00{1: 2}": (
        "the header is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    ),
    b"\x0a\x00\x00\x00\x00\x00\x00\x00{}trailing": "the header is not JSON: Extra data: line 1 column 3 (char 2)",
    b'\x09\x00\x00\x00\x00\x00\x00\x00{"a":NaN}': "the header is not JSON: NaN is no JSON value",
    b"\x02\x00\x00\x00\x00\x00\x00\x00{}data": "4 bytes at the end of the file belong to no tensor",
    b"\x0e\x00\x00\x00\x00\x00\x00\x00" + b'{"a":0, "a":0}': "the header has 'a' twice",
    b"\x12\x00\x00\x00\x00\x00\x00\x00" + b'{"__metadata__":1}': (
        "the header's __metadata__ is not a mapping of strings to strings"
    ),
    b"\x18\x00\x00\x00\x00\x00\x00\x00" + b'{"__metadata__":{"k":1}}': (
        "the header's __metadata__ is not a mapping of strings to strings"
    ),
}


@pytest.mark.parametrize(("raw", "message"), HOSTILE.items())
def test_hostile_files_are_refused_with_one_sentence(raw: bytes, message: str) -> None:
    assert refusal(raw) == message


HOSTILE_TENSORS = {
    "7": "tensor 't' does not have a dtype, a shape and data_offsets",
    "{}": "tensor 't' does not have a dtype, a shape and data_offsets",
    '{"dtype":"F32","shape":[2]}': "tensor 't' does not have a dtype, a shape and data_offsets",
    '{"dtype":"F31","shape":[2],"data_offsets":[0,8]}': "tensor 't' has the unknown dtype 'F31'",
    '{"dtype":["F32"],"shape":[2],"data_offsets":[0,8]}': "tensor 't' has the unknown dtype ['F32']",
    '{"dtype":"F32","shape":2,"data_offsets":[0,8]}': "tensor 't' has a shape that is not a list of sizes",
    '{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}': "tensor 't' has a shape that is not a list of sizes",
    '{"dtype":"F32","shape":[true,2],"data_offsets":[0,8]}': "tensor 't' has a shape that is not a list of sizes",
    '{"dtype":"F32","shape":[-1,-2],"data_offsets":[0,8]}': "tensor 't' has a shape that is not a list of sizes",
    '{"dtype":"F32","shape":[18446744073709551616,0],"data_offsets":[0,0]}': (
        "tensor 't' has a shape that is not a list of sizes"
    ),
    '{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}': "tensor 't' has data_offsets that are not two file positions",
    '{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}': "tensor 't' has data_offsets that are not two file positions",
    '{"dtype":"F32","shape":[2],"data_offsets":["0","8"]}': (
        "tensor 't' has data_offsets that are not two file positions"
    ),
    '{"dtype":"F32","shape":[2],"data_offsets":[8,0]}': "tensor 't' has data_offsets that run backwards",
    '{"dtype":"F32","shape":[3],"data_offsets":[0,8]}': (
        "tensor 't' of dtype F32 and shape [3] takes 12 bytes, but its data_offsets span 8"
    ),
    '{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}': (
        "tensor 't' of dtype F32 and shape [4611686018427387904, 4] takes 73786976294838206464 bytes, "
        "but its data_offsets span 0"
    ),
    '{"dtype":"F4","shape":[3],"data_offsets":[0,1]}': "tensor 't' of dtype F4 and shape [3] does not fill whole bytes",
    '{"dtype":"F32","shape":[2],"data_offsets":[4,12]}': "4 bytes before tensor 't' belong to no tensor",
    '{"dtype":"F32","shape":[4],"data_offsets":[0,16]}': "the tensors end at byte 79 but the file has 71",
    '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}': "4 bytes at the end of the file belong to no tensor",
    '{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"u":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}': (
        "tensor 'u' overlaps the tensor before it"
    ),
    '{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"t":{}': "the header has 't' twice",
}


@pytest.mark.parametrize(("tensor", "message"), HOSTILE_TENSORS.items())
def test_hostile_tensors_are_refused_with_one_sentence(tensor: str, message: str) -> None:
    raw = file_of('{"t":' + tensor + "}", data=bytes(8))
    assert refusal(raw) == message


def test_a_name_that_is_half_a_character_is_refused() -> None:
    raw = file_of(rb'{"\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')
    assert refusal(raw) == r"the tensor name '\ud800' is not valid Unicode"


@pytest.mark.parametrize("escaped", [r"a\u001b[31m", r"a\nb", r"\u0000", r"\u009b2J"])
def test_a_name_that_would_steer_a_terminal_is_refused(escaped: str) -> None:
    name = json.loads(f'"{escaped}"')
    raw = file_of(f'{{"{escaped}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}}}')
    assert refusal(raw) == f"the tensor name {name!r} has control characters, which could rewrite a terminal"


def test_deep_nesting_is_refused() -> None:
    assert refusal(file_of("[" * 1_000_000)) == "the header is nested too deeply"


def test_an_endless_number_is_refused() -> None:
    assert refusal(file_of('{"t":' + "9" * 10_000 + "}")).startswith("the header is not JSON: Exceeds the limit")


def test_more_dimensions_than_torch_knows_are_refused() -> None:
    shape = [1] * 65
    raw = file_of(json.dumps({"t": {"dtype": "U8", "shape": shape, "data_offsets": [0, 1]}}), data=b"\0")
    assert refusal(raw) == "tensor 't' has 65 dimensions; 64 is the most that torch knows"


def test_the_longest_allowed_header_is_not_too_long() -> None:
    prefix = struct.pack("<Q", MAX_JSON_BYTES)
    assert header_length(prefix, file_size=MAX_JSON_BYTES + 8) == MAX_JSON_BYTES + 8


def test_one_byte_more_is() -> None:
    prefix = struct.pack("<Q", MAX_JSON_BYTES + 1)
    with pytest.raises(HeaderError, match=r"claims 100000001 bytes; the safetensors format allows 100000000"):
        header_length(prefix, file_size=MAX_JSON_BYTES + 9)


def test_a_file_of_the_safetensors_library_is_read_as_it_reads_it(tmp_path) -> None:
    tensors = {
        "b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "a": torch.tensor(1.5),
        "empty": torch.zeros(0, 4),
        "flag": torch.tensor([True, False, True]),
        "ünï🤗": torch.arange(3),
    }
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    raw = path.read_bytes()
    header = parse_header(raw, file_size=len(raw))
    assert {tensor.name for tensor in header.tensors} == set(tensors)
    assert header.metadata == {"format": "pt"}
    for tensor in header.tensors:
        expected = tensors[tensor.name]
        assert tensor.shape == tuple(expected.shape)
        assert tensor.elements == expected.numel()
        assert tensor.size_bytes == expected.numel() * item_size(tensor.dtype)
        assert raw[tensor.start : tensor.stop] == bytes(expected.reshape(-1).view(torch.uint8).tolist())


def test_tensors_come_in_the_order_of_their_data() -> None:
    header = '{"z":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"y":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    raw = file_of(header, data=b"ab")
    assert [tensor.name for tensor in parse_header(raw, file_size=len(raw)).tensors] == ["y", "z"]


def test_data_after_the_header_is_not_looked_at() -> None:
    raw, tensors = build_header([("t", "F32", (2,))])
    assert parse_header(raw + b"1234", file_size=len(raw) + 8).tensors == tensors


def test_a_built_header_is_what_the_library_writes() -> None:
    tensors = {"w": torch.ones(2, 3, dtype=torch.float32), "v": torch.ones(5, dtype=torch.bfloat16)}
    raw, _ = build_header([("w", "F32", (2, 3)), ("v", "BF16", (5,))])
    assert safetensors.torch.save(tensors, {"format": "pt"}).startswith(raw)


def test_a_built_header_says_where_the_data_belongs() -> None:
    raw, tensors = build_header([("a", "BF16", (3,)), ("b", "I64", ())], metadata={})
    assert len(raw) % 8 == 0
    assert tensors == (
        TensorInfo("a", "BF16", (3,), len(raw), len(raw) + 6),
        TensorInfo("b", "I64", (), len(raw) + 6, len(raw) + 14),
    )


def test_a_file_without_tensors_is_a_file() -> None:
    raw, tensors = build_header([])
    assert tensors == ()
    assert safetensors.torch.load(raw) == {}


def test_a_dtype_without_whole_bytes_has_no_item_size() -> None:
    with pytest.raises(
        HeaderError, match=r"^one element of dtype F4 has 4 bits, which is not a whole number of bytes$"
    ):
        item_size("F4")


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])).filter(lambda name: name != "__metadata__")
DTYPES = st.sampled_from([dtype for dtype, bits in ITEM_BITS.items() if bits >= 8])
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
TENSORS = st.lists(st.tuples(NAMES, DTYPES, SHAPES), unique_by=lambda tensor: tensor[0])


@settings(max_examples=50, deadline=None)
@given(TENSORS)
def test_every_built_header_is_read_back_and_opened_by_the_library(tensors) -> None:
    raw, infos = build_header(tensors)
    data = bytes(infos[-1].stop - len(raw)) if infos else b""
    header = parse_header(raw, file_size=len(raw) + len(data))
    assert header.size_bytes == len(raw)
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in header.tensors] == tensors
    names = [name for name, _ in safetensors.deserialize(raw + data)]
    assert sorted(names) == sorted(name for name, _, _ in tensors)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 100))
def test_arbitrary_bytes_never_raise_anything_else(noise: bytes, at: int) -> None:
    raw, _ = build_header([("a", "F32", (1,)), ("b", "U8", (3,))])
    raw = raw[:8] + (raw[8:] + bytes(7))[:at] + noise + (raw[8:] + bytes(7))[at + len(noise) :]
    with suppress(HeaderError):
        parse_header(raw, file_size=len(raw))
