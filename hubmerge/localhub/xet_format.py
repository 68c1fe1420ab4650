"""The binary formats of Xet storage: hashes, xorbs (packed chunks) and shards (which chunks make which file).

Everything here is pure and treats its input as hostile: lengths are checked before they are used, and
whatever does not follow the format raises `XetFormatError`. The formats are specified, Apache-2.0, in
https://huggingface.co/docs/xet. Chunk hashes are BLAKE3, which Python lacks, so they are not checked:
a rebuilt file is checked by its SHA-256 instead.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import lz4.frame

CHUNK_HEADER_BYTES = 8
MAX_CHUNK_BYTES = 128 * 1024
# 64 MiB of chunks, and room for the chunk headers and the optional footer of the smallest chunks.
MAX_XORB_BYTES = 65 * 1024 * 1024
MAX_SHARD_BYTES = 64 * 1024 * 1024

_HASH = re.compile(r"[0-9a-f]{64}")
_XORB_FOOTER_IDENT = b"XETBLOB"
_SCHEME_STORED, _SCHEME_LZ4, _SCHEME_BYTE_GROUPED_LZ4 = 0, 1, 2

_SHARD_TAG = b"HFRepoMetaData\0" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
_SHARD_VERSION = 2
_SHARD_HEADER = struct.Struct("<32sQQ")
_RECORD = struct.Struct("<32s4I")  # every shard record: a hash and four words, some of them unused
_BOOKEND = b"\xff" * 32
_FLAG_VERIFICATION = 1 << 31
_FLAG_METADATA = 1 << 30

_Record = tuple[bytes, int, int, int, int]


class XetFormatError(ValueError):
    """A hash, a xorb or a shard that does not follow its format; the message says what and where."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where one chunk lies in its xorb; byte offsets count from the start of the xorb.

    Attributes:
        start: Offset of the chunk's 8-byte header.
        stop: Offset after the chunk's packed data, exclusive.
        scheme: 0 stored, 1 LZ4 frame, 2 LZ4 frame of byte groups.
        unpacked_bytes: Length after unpacking, 1 to 131,072.
    """

    start: int
    stop: int
    scheme: int
    unpacked_bytes: int


@dataclass(frozen=True, slots=True)
class Term:
    """One piece of a file: the chunks `start` to `stop` (exclusive) of a xorb, `unpacked_bytes` long together."""

    xorb_hash: str
    start: int
    stop: int
    unpacked_bytes: int


@dataclass(frozen=True, slots=True)
class FileInfo:
    """How a file is rebuilt: its terms, in order; `sha256` is what the uploader claims, or None."""

    file_hash: str
    sha256: str | None
    terms: tuple[Term, ...]

    @property
    def size_bytes(self) -> int:
        """The length of the rebuilt file."""
        return sum(term.unpacked_bytes for term in self.terms)


def is_hash(text: str) -> bool:
    """Whether the text is the hex form of a hash, and therefore also safe as a file name."""
    return _HASH.fullmatch(text) is not None


def parse_hash(text: str) -> str:
    """The same text, when it is a hash.

    Raises:
        XetFormatError: It is not 64 lowercase hexadecimal digits.
    """
    if not is_hash(text):
        raise XetFormatError("a hash is 64 lowercase hexadecimal digits")
    return text


def hash_to_hex(raw: bytes) -> str:
    """The hex form of a 32-byte hash: four little-endian 64-bit numbers, not byte by byte.

    A SHA-256 inside a shard is stored in the same order, so this gives its usual hex form.
    """
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))


def scan_xorb(xorb: BinaryIO, size_bytes: int) -> tuple[Chunk, ...]:
    """The chunks of a serialized xorb, in order, found by hopping from header to header.

    Args:
        xorb: A seekable file; only the 8-byte headers and the length of the footer are read.
        size_bytes: The length of the file.

    Raises:
        XetFormatError: A header is malformed, a chunk or the footer is cut off, or there is no chunk.
    """
    chunks: list[Chunk] = []
    offset = 0
    while offset < size_bytes:
        xorb.seek(offset)
        header = xorb.read(CHUNK_HEADER_BYTES)
        if header.startswith(_XORB_FOOTER_IDENT):
            _check_xorb_footer(xorb, offset, size_bytes)
            break
        chunks.append(_parse_chunk_header(header, offset, size_bytes))
        offset = chunks[-1].stop
    if not chunks:
        raise XetFormatError("the xorb has no chunks")
    return tuple(chunks)


def _parse_chunk_header(header: bytes, offset: int, size_bytes: int) -> Chunk:
    if len(header) < CHUNK_HEADER_BYTES:
        raise XetFormatError(f"the xorb is cut off in the chunk header at byte {offset}")
    version, scheme = header[0], header[4]
    packed_bytes = int.from_bytes(header[1:4], "little")
    unpacked_bytes = int.from_bytes(header[5:8], "little")
    stop = offset + CHUNK_HEADER_BYTES + packed_bytes
    if version != 0 or scheme > _SCHEME_BYTE_GROUPED_LZ4:
        raise XetFormatError(f"the chunk at byte {offset} has unknown version {version} or scheme {scheme}")
    if not 0 < unpacked_bytes <= MAX_CHUNK_BYTES:
        raise XetFormatError(
            f"the chunk at byte {offset} unpacks to {unpacked_bytes} bytes; 1 to {MAX_CHUNK_BYTES} can be"
        )
    if scheme == _SCHEME_STORED and packed_bytes != unpacked_bytes:
        raise XetFormatError(f"the stored chunk at byte {offset} has two lengths: {packed_bytes} and {unpacked_bytes}")
    if stop > size_bytes:
        raise XetFormatError(f"the xorb is cut off in the chunk at byte {offset}")
    return Chunk(offset, stop, scheme, unpacked_bytes)


def _check_xorb_footer(xorb: BinaryIO, offset: int, size_bytes: int) -> None:
    xorb.seek(size_bytes - 4)
    footer_bytes = int.from_bytes(xorb.read(4), "little")
    if offset + footer_bytes + 4 != size_bytes:
        raise XetFormatError(f"the xorb footer at byte {offset} does not end where the xorb ends")


def unpack_chunk(chunk: Chunk, stored: bytes) -> bytes:
    """The data of a chunk.

    Args:
        chunk: What `scan_xorb` found.
        stored: The bytes `chunk.start` to `chunk.stop` of the xorb.

    Raises:
        XetFormatError: The data do not unpack to `chunk.unpacked_bytes` bytes.
    """
    packed = stored[CHUNK_HEADER_BYTES:]
    if chunk.scheme == _SCHEME_STORED:
        return packed
    data = _unpack_lz4(chunk, packed)
    return _ungroup_bytes(data) if chunk.scheme == _SCHEME_BYTE_GROUPED_LZ4 else data


def _unpack_lz4(chunk: Chunk, packed: bytes) -> bytes:
    decoder = lz4.frame.LZ4FrameDecompressor()
    try:
        data: bytes = decoder.decompress(packed, max_length=chunk.unpacked_bytes)
    except RuntimeError as error:
        raise XetFormatError(f"the chunk at byte {chunk.start} is not an LZ4 frame") from error
    if len(data) != chunk.unpacked_bytes or not decoder.eof:
        raise XetFormatError(f"the chunk at byte {chunk.start} does not unpack to {chunk.unpacked_bytes} bytes")
    return data


def _ungroup_bytes(grouped: bytes) -> bytes:
    """Undo byte grouping: all bytes at positions 0 modulo 4 come first, then those at 1, 2 and 3."""
    data = bytearray(len(grouped))
    group_start = 0
    for position in range(4):
        group_bytes = len(range(position, len(grouped), 4))
        data[position::4] = grouped[group_start : group_start + group_bytes]
        group_start += group_bytes
    return bytes(data)


def parse_shard(shard: bytes) -> tuple[FileInfo, ...]:
    """The files that an uploaded shard registers; a footer, which uploads should not have, is ignored.

    Raises:
        XetFormatError: The header is not that of a version 2 shard, a section lacks its bookend, or a term is empty.
    """
    if len(shard) < _SHARD_HEADER.size:
        raise XetFormatError("the shard is cut off in its header")
    tag, version, _ = _SHARD_HEADER.unpack_from(shard)
    if tag != _SHARD_TAG or version != _SHARD_VERSION:
        raise XetFormatError("the upload is not a version 2 shard")
    body = memoryview(shard)[_SHARD_HEADER.size :]
    records = _RECORD.iter_unpack(body[: len(body) // _RECORD.size * _RECORD.size])
    files = tuple(_read_files(records))
    _skip_xorb_section(records)
    return files


def _next_record(records: Iterator[_Record]) -> _Record:
    record = next(records, None)
    if record is None:
        raise XetFormatError("the shard is cut off")
    return record


def _read_files(records: Iterator[_Record]) -> Iterator[FileInfo]:
    while (header := _next_record(records))[0] != _BOOKEND:
        file_hash, flags, term_count, _, _ = header
        terms = tuple(_read_term(records) for _ in range(term_count))
        for _ in range(term_count if flags & _FLAG_VERIFICATION else 0):
            _next_record(records)  # hashes over chunk hashes, which cannot be checked here
        sha256 = hash_to_hex(_next_record(records)[0]) if flags & _FLAG_METADATA else None
        yield FileInfo(hash_to_hex(file_hash), sha256, terms)


def _read_term(records: Iterator[_Record]) -> Term:
    xorb_hash, _, unpacked_bytes, start, stop = _next_record(records)
    if start >= stop:
        raise XetFormatError(f"a term of the shard spans no chunks: {start} to {stop}")
    return Term(hash_to_hex(xorb_hash), start, stop, unpacked_bytes)


def _skip_xorb_section(records: Iterator[_Record]) -> None:
    while (header := _next_record(records))[0] != _BOOKEND:
        for _ in range(header[2]):
            _next_record(records)
