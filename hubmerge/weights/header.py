"""The header of a safetensors file: parsed from bytes that nobody vouches for, built from names and shapes alone.

A file is `<u64 little-endian N><N bytes of JSON><data>`. Offsets in the JSON count from the end of the header;
offsets in `TensorInfo` count from the start of the file, so that they can be read without further thought.
Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hubmerge.errors import HeaderError

MAX_JSON_BYTES = 100_000_000
"""Longest JSON that the safetensors library reads (its MAX_HEADER_SIZE)."""

MAX_DIMENSIONS = 64
"""torch has no tensors of more dimensions; it also bounds the arithmetic on hostile shapes."""

MAX_DIMENSION = 2**63 - 1

PREFIX_BYTES = 8

ALIGNMENT_BYTES = 8

METADATA_KEY = "__metadata__"

PYTORCH_METADATA: Mapping[str, str] = MappingProxyType({"format": "pt"})
"""What transformers asks of a checkpoint before it loads it."""

ITEM_BITS: Mapping[str, int] = MappingProxyType(
    {
        "BOOL": 8,
        "U8": 8,
        "I8": 8,
        "U16": 16,
        "I16": 16,
        "F16": 16,
        "BF16": 16,
        "U32": 32,
        "I32": 32,
        "F32": 32,
        "U64": 64,
        "I64": 64,
        "F64": 64,
        "C64": 64,
        "F8_E4M3": 8,
        "F8_E5M2": 8,
        "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8,
        "F8_E5M2FNUZ": 8,
        "F6_E2M3": 6,
        "F6_E3M2": 6,
        "F4": 4,
    }
)
"""Bits of one element by safetensors dtype code."""


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies in its file: bytes [start, stop), counted from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def elements(self) -> int:
        """Number of elements; a scalar has one."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of data."""
        return self.stop - self.start


@dataclass(frozen=True)
class Header:
    """All that a safetensors file says about itself.

    Attributes:
        tensors: In the order of their data, without holes or overlaps.
        size_bytes: Length prefix and JSON together: where the data begins.
    """

    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    size_bytes: int


def item_size(dtype: str) -> int:
    """Returns the bytes of one element.

    Raises:
        HeaderError: The dtype is unknown, or its elements do not fill whole bytes.
    """
    bits = _bits_of(dtype)
    if bits % 8:
        raise HeaderError(f"one element of dtype {dtype} has {bits} bits, which is not a whole number of bytes")
    return bits // 8


def header_length(prefix: bytes, *, file_size: int) -> int:
    """Returns where the data begins, from the first 8 bytes of a file of `file_size` bytes.

    Raises:
        HeaderError: The length that the file states cannot be true.
    """
    if file_size < PREFIX_BYTES or len(prefix) < PREFIX_BYTES:
        raise HeaderError(f"the file has {file_size} bytes, too few for a safetensors header")
    json_bytes = int.from_bytes(prefix[:PREFIX_BYTES], "little")
    if json_bytes > MAX_JSON_BYTES:
        raise HeaderError(f"the header claims {json_bytes} bytes; the safetensors format allows {MAX_JSON_BYTES}")
    if PREFIX_BYTES + json_bytes > file_size:
        raise HeaderError(f"the header claims {json_bytes} bytes but the whole file has {file_size}")
    return PREFIX_BYTES + json_bytes


def parse_header(raw: bytes, *, file_size: int) -> Header:
    """Returns the header of a file of `file_size` bytes.

    Args:
        raw: The beginning of the file, at least as far as its header goes; what follows is not looked at.
        file_size: Bytes of the whole file; the data must end exactly there.

    Raises:
        HeaderError: The header is broken, inconsistent or hostile.
    """
    data_start = header_length(raw, file_size=file_size)
    assert len(raw) >= data_start, "the caller reads as many bytes as header_length says"
    members = _load_json(raw[PREFIX_BYTES:data_start])
    metadata = _parse_metadata(members.pop(METADATA_KEY, {}))
    tensors = [_parse_tensor(name, value, data_start) for name, value in members.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.stop))
    _check_layout(tensors, data_start=data_start, file_size=file_size)
    return Header(tuple(tensors), metadata, data_start)


def build_header(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]], *, metadata: Mapping[str, str] = PYTORCH_METADATA
) -> tuple[bytes, tuple[TensorInfo, ...]]:
    """Returns the first bytes of a safetensors file and where each tensor's data belongs in it.

    Args:
        tensors: Name, dtype code and shape of each tensor, in the order of their data.
        metadata: The file's free-form strings.
    """
    members: dict[str, Any] = {METADATA_KEY: dict(metadata)}
    offset = 0
    for name, dtype, shape in tensors:
        assert name not in members, f"{name} stands twice in one file"
        stop = offset + _data_size(name, dtype, shape)
        members[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, stop]}
        offset = stop
    raw = _dump_json(members)
    return raw, parse_header(raw, file_size=len(raw) + offset).tensors


def _dump_json(members: Mapping[str, Any]) -> bytes:
    text = json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT_BYTES)
    return len(text).to_bytes(PREFIX_BYTES, "little") + text


def _load_json(text: bytes) -> dict[str, Any]:
    try:
        members = json.loads(text.decode("utf-8"), object_pairs_hook=_object_of, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise HeaderError(f"the header is not UTF-8: byte {error.start} cannot be decoded") from None
    except RecursionError:
        raise HeaderError("the header is nested too deeply") from None
    except ValueError as error:
        raise HeaderError(f"the header is not JSON: {error}") from None
    if not isinstance(members, dict):
        raise HeaderError("the header is not a JSON object")
    return members


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise HeaderError(f"the header has {name!r} twice")
        seen.add(name)
    raise AssertionError("a name that stands twice was not found")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON value")


def _parse_metadata(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise HeaderError(f"the header's {METADATA_KEY} is not a mapping of strings to strings")
    return MappingProxyType(value)


def _parse_tensor(name: str, value: object, data_start: int) -> TensorInfo:
    _check_name(name)
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise HeaderError(f"tensor {name!r} does not have a dtype, a shape and data_offsets")
    shape = _parse_shape(name, value["shape"])
    start, stop = _parse_offsets(name, value["data_offsets"])
    expected = _data_size(name, value["dtype"], shape)
    if stop - start != expected:
        raise HeaderError(
            f"tensor {name!r} of dtype {value['dtype']} and shape {list(shape)} takes {expected} bytes, "
            f"but its data_offsets span {stop - start}"
        )
    return TensorInfo(name, value["dtype"], shape, data_start + start, data_start + stop)


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise HeaderError(f"the tensor name {name!r} is not valid Unicode") from None
    if any(character < " " or "\x7f" <= character < "\xa0" for character in name):
        raise HeaderError(f"the tensor name {name!r} has control characters, which could rewrite a terminal")


def _parse_shape(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(_is_count(size) for size in value):
        raise HeaderError(f"tensor {name!r} has a shape that is not a list of sizes")
    if len(value) > MAX_DIMENSIONS:
        raise HeaderError(f"tensor {name!r} has {len(value)} dimensions; {MAX_DIMENSIONS} is the most that torch knows")
    return tuple(value)


def _parse_offsets(name: str, value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_count(offset) for offset in value):
        raise HeaderError(f"tensor {name!r} has data_offsets that are not two file positions")
    if value[1] < value[0]:
        raise HeaderError(f"tensor {name!r} has data_offsets that run backwards")
    return value[0], value[1]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_DIMENSION


def _data_size(name: str, dtype: object, shape: tuple[int, ...]) -> int:
    bits = math.prod(shape) * _bits_of(dtype, name)
    if bits % 8:
        raise HeaderError(f"tensor {name!r} of dtype {dtype} and shape {list(shape)} does not fill whole bytes")
    return bits // 8


def _bits_of(dtype: object, name: str | None = None) -> int:
    bits = ITEM_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        owner = f"tensor {name!r} has" if name is not None else "there is"
        raise HeaderError(f"{owner} the unknown dtype {dtype!r}")
    return bits


def _check_layout(tensors: Sequence[TensorInfo], *, data_start: int, file_size: int) -> None:
    position = data_start
    for tensor in tensors:
        if tensor.start > position:
            raise HeaderError(f"{tensor.start - position} bytes before tensor {tensor.name!r} belong to no tensor")
        if tensor.start < position:
            raise HeaderError(f"tensor {tensor.name!r} overlaps the tensor before it")
        position = tensor.stop
    if position > file_size:
        raise HeaderError(f"the tensors end at byte {position} but the file has {file_size}")
    if position < file_size:
        raise HeaderError(f"{file_size - position} bytes at the end of the file belong to no tensor")
