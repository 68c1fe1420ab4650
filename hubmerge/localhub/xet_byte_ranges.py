"""HTTP answers that hold byte ranges of a file, read as they are sent.

A range is written as in HTTP, `first-last`, both inclusive, and lies within the file.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from starlette.responses import Response, StreamingResponse

_READ_BYTES = 1024 * 1024


def send_range(path: Path, byte_range: str) -> Response:
    """An answer with one range of the file."""
    headers = {
        "Content-Range": f"bytes {byte_range}/{path.stat().st_size}",
        "Content-Length": str(_range_bytes(byte_range)),
    }
    return StreamingResponse(_read_range(path, byte_range), 206, headers, "application/octet-stream")


def send_ranges(path: Path, byte_ranges: Sequence[str]) -> Response:
    """A `multipart/byteranges` answer (RFC 9110, section 14.6) in the order in which the ranges were asked for."""
    boundary = secrets.token_hex(16)
    size_bytes = path.stat().st_size
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Range: bytes {byte_range}/{size_bytes}\r\n\r\n".encode()
        for byte_range in byte_ranges
    ]
    tail = f"\r\n--{boundary}--\r\n".encode()
    length = sum(map(len, heads)) + sum(map(_range_bytes, byte_ranges)) + len(tail)

    def body() -> Iterator[bytes]:
        for head, byte_range in zip(heads, byte_ranges, strict=True):
            yield head
            yield from _read_range(path, byte_range)
        yield tail

    media_type = f"multipart/byteranges; boundary={boundary}"
    return StreamingResponse(body(), 206, {"Content-Length": str(length)}, media_type)


def _range_bytes(byte_range: str) -> int:
    first, last = map(int, byte_range.split("-"))
    return last + 1 - first


def _read_range(path: Path, byte_range: str) -> Iterator[bytes]:
    left = _range_bytes(byte_range)
    with path.open("rb") as file:
        file.seek(int(byte_range.split("-")[0]))
        while block := file.read(min(left, _READ_BYTES)):
            left -= len(block)
            yield block
