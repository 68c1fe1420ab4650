"""Answers that hold a file, or the one byte range of it that was asked for."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hubmerge.localhub.refusals import Refusal

_BLOCK_BYTES = 512 * 1024
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `stop`, exclusive, of a file."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.stop - self.start


def requested_span(header: str | None, size_bytes: int) -> Span | None:
    """Returns the range that a Range header asks for; None where the whole file is the answer.

    A header with several ranges, or one that makes no sense, is ignored, as HTTP allows.

    Raises:
        Refusal: 416 where the range begins behind the end of the file.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        span = Span(max(0, size_bytes - int(last)), size_bytes)
    else:
        span = Span(int(first), min(int(last) + 1, size_bytes) if last else size_bytes)
    if span.start >= size_bytes:
        raise Refusal(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size_bytes}"})
    return span if span.size > 0 else None


def file_answer(request: Request, file: Path, headers: Mapping[str, str]) -> Response:
    """Returns 200 with the file or 206 with the range asked for; only the headers for HEAD."""
    size_bytes = file.stat().st_size
    span = requested_span(request.headers.get("range"), size_bytes)
    sent = span or Span(0, size_bytes)
    ranged = {} if span is None else {"Content-Range": f"bytes {span.start}-{span.stop - 1}/{size_bytes}"}
    all_headers = {"Accept-Ranges": "bytes", "Content-Length": str(sent.size), **ranged, **headers}
    status = 200 if span is None else 206
    if request.method == "HEAD":
        return Response(None, status, all_headers, "application/octet-stream")
    return StreamingResponse(_blocks(file, sent), status, all_headers, "application/octet-stream")


async def _blocks(file: Path, span: Span) -> AsyncIterator[bytes]:
    left = span.size
    with file.open("rb") as handle:
        handle.seek(span.start)
        while left > 0:
            block = await run_in_threadpool(handle.read, min(_BLOCK_BYTES, left))
            if not block:
                return
            left -= len(block)
            yield block
