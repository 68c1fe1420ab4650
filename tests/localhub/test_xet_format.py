"""The Xet formats, from literal bytes: what they mean, and what is refused."""

from __future__ import annotations

import io
import struct

import lz4.frame
import pytest

from hubmerge.localhub.xet_format import (
    Chunk,
    FileInfo,
    Term,
    XetFormatError,
    hash_to_hex,
    parse_hash,
    parse_shard,
    scan_xorb,
    unpack_chunk,
)
from hubmerge.localhub.xet_reconstruction import Reconstruction, XorbRange, reconstruct

HELLO = b"\x00\x05\x00\x00\x00\x05\x00\x00hello"
WORLD = b"\x00\x06\x00\x00\x00\x06\x00\x00 world"

SHARD_TAG = b"HFRepoMetaData\x00UigEj{\x81W\x83\xa5\xbd\xd9\\\xcd\xd1J\xa9"
SHARD_HEADER = SHARD_TAG + b"\x02" + b"\x00" * 15
BOOKEND = b"\xff" * 32 + b"\x00" * 16
BYTES_0_TO_31 = bytes(range(32))
HEX_0_TO_31 = "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918"


def record(raw_hash: bytes, *words: int) -> bytes:
    return raw_hash + struct.pack("<4I", *words, *[0] * (4 - len(words)))


def scan(xorb: bytes) -> tuple[Chunk, ...]:
    return scan_xorb(io.BytesIO(xorb), len(xorb))


def unpack(xorb: bytes) -> bytes:
    return b"".join(unpack_chunk(chunk, xorb[chunk.start : chunk.stop]) for chunk in scan(xorb))


def chunk_bytes(scheme: int, packed: bytes, *, unpacked_bytes: int) -> bytes:
    lengths = struct.pack("<I", len(packed))[:3], struct.pack("<I", unpacked_bytes)[:3]
    return b"\x00" + lengths[0] + bytes([scheme]) + lengths[1] + packed


def test_a_hash_is_written_as_four_little_endian_numbers():
    assert hash_to_hex(BYTES_0_TO_31) == HEX_0_TO_31


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "A" * 64, "../" + "0" * 61, "0" * 64 + "\n", "٣" * 64])
def test_what_is_not_64_lowercase_hex_digits_is_no_hash(text):
    with pytest.raises(XetFormatError, match=r"^a hash is 64 lowercase hexadecimal digits$"):
        parse_hash(text)


def test_chunks_are_found_by_their_headers():
    assert scan(HELLO + WORLD) == (Chunk(0, 13, 0, 5), Chunk(13, 27, 0, 6))


def test_a_footer_ends_the_chunks():
    footer = b"XETBLOB\x01" + b"\x00" * 40
    assert scan(HELLO + footer + struct.pack("<I", len(footer))) == (Chunk(0, 13, 0, 5),)


def test_stored_chunks_unpack_to_themselves():
    assert unpack(HELLO + WORLD) == b"hello world"


def test_lz4_chunks_unpack():
    data = b"hubmerge " * 1000
    assert unpack(chunk_bytes(1, lz4.frame.compress(data), unpacked_bytes=len(data))) == data


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 7, 8, 1001])
def test_byte_grouped_chunks_unpack(length):
    data = bytes(index % 251 for index in range(length))
    grouped = data[0::4] + data[1::4] + data[2::4] + data[3::4]
    assert unpack(chunk_bytes(2, lz4.frame.compress(grouped), unpacked_bytes=length)) == data


@pytest.mark.parametrize(
    ("xorb", "message"),
    [
        (b"", "the xorb has no chunks"),
        (HELLO[:5], "the xorb is cut off in the chunk header at byte 0"),
        (HELLO[:-1], "the xorb is cut off in the chunk at byte 0"),
        (HELLO + WORLD[:-3], "the xorb is cut off in the chunk at byte 13"),
        (b"\x01" + HELLO[1:], "the chunk at byte 0 has unknown version 1 or scheme 0"),
        (HELLO[:4] + b"\x03" + HELLO[5:], "the chunk at byte 0 has unknown version 0 or scheme 3"),
        (HELLO[:5] + b"\x06\x00\x00hello", "the stored chunk at byte 0 has two lengths: 5 and 6"),
        (b"\x00" * 8, "the chunk at byte 0 unpacks to 0 bytes; 1 to 131072 can be"),
        (b"\x00\x01\x00\x00\x01\xff\xff\xffx", "the chunk at byte 0 unpacks to 16777215 bytes; 1 to 131072 can be"),
        (HELLO + b"XETBLOB\x01\xff\xff\xff\xff", "the xorb footer at byte 13 does not end where the xorb ends"),
        (HELLO + b"XETBLOB", "the xorb footer at byte 13 does not end where the xorb ends"),
    ],
)
def test_broken_xorbs_are_refused(xorb, message):
    with pytest.raises(XetFormatError) as error:
        scan(xorb)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (b"not a frame at all", "the chunk at byte 0 is not an LZ4 frame"),
        (b"", "the chunk at byte 0 does not unpack to 100 bytes"),
        (lz4.frame.compress(b"x" * 99), "the chunk at byte 0 does not unpack to 100 bytes"),
        (lz4.frame.compress(b"x" * 131_072), "the chunk at byte 0 does not unpack to 100 bytes"),
        (lz4.frame.compress(b"x" * 100)[:-4], "the chunk at byte 0 does not unpack to 100 bytes"),
    ],
)
def test_chunks_that_do_not_unpack_as_declared_are_refused(packed, message):
    with pytest.raises(XetFormatError) as error:
        unpack(chunk_bytes(1, packed, unpacked_bytes=100))
    assert str(error.value) == message


def test_a_shard_lists_files_with_and_without_their_sha256():
    shard = (
        SHARD_HEADER
        + record(b"\x01" * 32, 0xC0000000, 1)  # one term, with verification and metadata
        + record(b"\x02" * 32, 0, 500, 0, 3)
        + record(b"\x03" * 32)
        + record(BYTES_0_TO_31)
        + record(b"\x04" * 32, 0, 2)  # two terms, nothing else
        + record(b"\x02" * 32, 0, 7, 3, 4)
        + record(b"\x05" * 32, 0, 9, 0, 1)
        + BOOKEND
        + record(b"\x02" * 32, 0, 1, 500, 400)  # one xorb with one chunk
        + record(b"\x06" * 32, 0, 500)
        + BOOKEND
    )
    assert parse_shard(shard) == (
        FileInfo("01" * 32, HEX_0_TO_31, (Term("02" * 32, 0, 3, 500),)),
        FileInfo("04" * 32, None, (Term("02" * 32, 3, 4, 7), Term("05" * 32, 0, 1, 9))),
    )


def test_a_shard_of_an_empty_file_has_no_terms():
    (info,) = parse_shard(SHARD_HEADER + record(b"\x00" * 32) + BOOKEND + BOOKEND)
    assert (info.terms, info.size_bytes) == ((), 0)


def test_a_shard_footer_is_ignored():
    assert parse_shard(SHARD_HEADER + BOOKEND + BOOKEND + b"\x01" * 200) == ()


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (b"", "the shard is cut off in its header"),
        (SHARD_HEADER[:-1], "the shard is cut off in its header"),
        (b"x" * 48, "the upload is not a version 2 shard"),
        (SHARD_TAG + b"\x03" + b"\x00" * 15, "the upload is not a version 2 shard"),
        (SHARD_HEADER, "the shard is cut off"),
        (SHARD_HEADER + BOOKEND, "the shard is cut off"),
        (SHARD_HEADER + record(b"\x01" * 32, 0, 0xFFFFFFFF) + BOOKEND[:40], "the shard is cut off"),
        (SHARD_HEADER + BOOKEND + record(b"\x01" * 32, 0, 0xFFFFFFFF), "the shard is cut off"),
        (
            SHARD_HEADER + record(b"\x01" * 32, 0, 1) + record(b"\x02" * 32, 0, 5, 3, 3) + BOOKEND,
            "a term of the shard spans no chunks: 3 to 3",
        ),
    ],
)
def test_broken_shards_are_refused(shard, message):
    with pytest.raises(XetFormatError) as error:
        parse_shard(shard)
    assert str(error.value) == message


# Ten chunks of 10 bytes each, packed to 4 bytes with their headers.
TEN_CHUNKS = tuple(Chunk(4 * index, 4 * index + 4, 1, 10) for index in range(10))


def rebuild(terms: list[Term], start: int, stop: int) -> Reconstruction:
    return reconstruct(terms, lambda _: TEN_CHUNKS, start, stop)


def test_a_whole_file_is_rebuilt_from_all_its_terms():
    terms = [Term("a", 0, 10, 100), Term("b", 2, 4, 20)]
    expected = {"a": (XorbRange(0, 10, 0, 40),), "b": (XorbRange(2, 4, 8, 16),)}
    assert rebuild(terms, 0, 120) == Reconstruction(0, tuple(terms), expected)


@pytest.mark.parametrize(
    ("start", "stop", "skip_bytes", "chunks"),
    [(0, 10, 0, (2, 3)), (0, 11, 0, (2, 4)), (9, 10, 9, (2, 3)), (10, 20, 0, (3, 4)), (15, 35, 5, (3, 6))],
)
def test_a_range_needs_only_the_chunks_that_it_touches(start, stop, skip_bytes, chunks):
    answer = rebuild([Term("a", 2, 8, 60)], start, stop)
    assert answer.skip_bytes == skip_bytes
    assert answer.terms == (Term("a", *chunks, 10 * (chunks[1] - chunks[0])),)


def test_a_range_leaves_out_the_terms_before_and_after_it():
    answer = rebuild([Term("a", 0, 1, 10), Term("b", 0, 2, 20), Term("c", 0, 1, 10)], 12, 28)
    assert answer == Reconstruction(2, (Term("b", 0, 2, 20),), {"b": (XorbRange(0, 2, 0, 8),)})


def test_overlapping_and_adjacent_terms_are_fetched_once():
    terms = [Term("a", 7, 9, 20), Term("a", 1, 3, 20), Term("a", 2, 4, 20), Term("a", 4, 5, 10)]
    assert rebuild(terms, 0, 70).fetches == {"a": (XorbRange(1, 5, 4, 20), XorbRange(7, 9, 28, 36))}


def test_an_empty_file_needs_nothing():
    assert rebuild([], 0, 0) == Reconstruction(0, (), {})
