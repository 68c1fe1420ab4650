"""The Xet content-addressed store over HTTP: what hf_xet uploads to and downloads from.

    POST /v1/xorbs/default/{hash}        write token   store a xorb
    HEAD /v1/xorbs/default/{hash}        read token    is it there?
    POST /v1/shards, /v2/shards          write token   register files: which xorbs make them
    GET  /v1, /v2/reconstructions/{hash} read token    how to rebuild a file, or one Range of it
    GET  /xorbs/{hash}?ranges=...        signed URL    bytes of a xorb, one or several ranges

Global deduplication and upload grants are optional in the protocol and answered with 404. All repos share one
store and knowing a file's hash opens it, so a token's scope is not compared with anything.
Specification: https://huggingface.co/docs/xet/api.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubmerge.localhub.refusals import Refusal, bad_request, forbidden
from hubmerge.localhub.signing import UrlSigner
from hubmerge.localhub.xet_byte_ranges import send_range, send_ranges
from hubmerge.localhub.xet_format import (
    MAX_SHARD_BYTES,
    MAX_XORB_BYTES,
    XetFormatError,
    parse_hash,
    parse_shard,
    scan_xorb,
)
from hubmerge.localhub.xet_reconstruction import Reconstruction, XorbRange, reconstruct
from hubmerge.localhub.xet_store import XetStore
from hubmerge.localhub.xet_tokens import XetTokens

_URL_LIFETIME_SECONDS = 3600
# 256 ranges of up to 18 characters keep the URL and the Range header within the usual limit of 8 KiB.
_RANGES_PER_URL = 256
_FILE_RANGE = re.compile(r"bytes=([0-9]{1,20})-([0-9]{0,20})")

_Handler = Callable[[Request], Awaitable[Response]]


class XetCas:
    """The store in a folder and its HTTP routes; it survives a restart and serves several clients at once.

    Args:
        root: The store's folder, made when something is first stored.
        secret: Signs tokens and URLs; those signed with another secret are refused.
    """

    def __init__(self, root: Path, *, secret: bytes) -> None:
        self._store = XetStore(root)
        self._tokens = XetTokens(secret)
        self._urls = UrlSigner(secret, _URL_LIFETIME_SECONDS)

    def routes(self) -> list[Route]:
        """The endpoints, to be mounted anywhere: the URL of the mount is the `casUrl` that clients are given."""
        return [
            Route("/v1/chunks/{prefix}/{hash}", _answering(_absent), methods=["GET"]),
            Route("/v1/xorb-grants/{rest:path}", _answering(_absent), methods=["POST"]),
            Route("/v1/xorbs/default/{hash}", _answering(self._find_xorb), methods=["HEAD"]),
            Route("/v1/xorbs/default/{hash}", _answering(self._receive_xorb), methods=["POST"]),
            Route("/v1/shards", _answering(self._receive_shard_v1), methods=["POST"]),
            Route("/v2/shards", _answering(self._receive_shard_v2), methods=["POST"]),
            Route("/v1/reconstructions/{hash}", _answering(self._reconstruct_v1), methods=["GET"]),
            Route("/v2/reconstructions/{hash}", _answering(self._reconstruct_v2), methods=["GET"]),
            Route("/xorbs/{hash}", _answering(self._send_xorb), methods=["GET"]),
        ]

    def issue_token(self, *, scope: str, write: bool, now: float, lifetime_seconds: int = 3600) -> tuple[str, int]:
        """An access token and the Unix time at which it expires; a write token may also read."""
        return self._tokens.issue(scope=scope, write=write, now=now, lifetime_seconds=lifetime_seconds)

    def file_hash(self, sha256: str) -> str | None:
        """The Xet hash of the file that was registered with this SHA-256; None for anything else."""
        return self._store.hash_of_sha256(sha256)

    def file_size(self, file_hash: str) -> int:
        """The size in bytes of a registered file; KeyError for any other hash."""
        return self._store.file(file_hash).size_bytes

    def write_file(self, file_hash: str, target: Path) -> str:
        """Rebuilds a registered file from its chunks and returns the SHA-256 of what was written.

        Raises:
            KeyError: No such file was registered.
            XetFormatError: A chunk, as it was uploaded, does not unpack; `target` is then left as it was.
        """
        return self._store.write_file(file_hash, target)

    async def _find_xorb(self, request: Request) -> Response:
        self._require_token(request, write=False)
        return Response(status_code=200 if self._store.has_xorb(_hash_in(request)) else 404)

    async def _receive_xorb(self, request: Request) -> Response:
        self._require_token(request, write=True)
        xorb_hash = _hash_in(request)
        is_new = not self._store.has_xorb(xorb_hash)
        if is_new:
            with self._store.new_xorb(xorb_hash) as file:
                size_bytes = await _receive_body(request, file)
                await run_in_threadpool(scan_xorb, file, size_bytes)
        else:
            await _discard_body(request)
        return JSONResponse({"was_inserted": is_new})

    async def _receive_shard_v1(self, request: Request) -> Response:
        await self._register_files(request)
        return JSONResponse({"result": 1})

    async def _receive_shard_v2(self, request: Request) -> Response:
        await self._register_files(request)
        return Response('{"type":"result"}\n', media_type="application/x-ndjson")

    async def _register_files(self, request: Request) -> None:
        self._require_token(request, write=True)
        shard = await _read_body(request, limit_bytes=MAX_SHARD_BYTES)
        for info in await run_in_threadpool(parse_shard, shard):
            await run_in_threadpool(self._store.add_file, info)

    async def _reconstruct_v1(self, request: Request) -> Response:
        answer = await run_in_threadpool(self._reconstruct, request)
        fetches = {
            xorb_hash: [_v1_fetch(self._sign(request, xorb_hash, [part]), part) for part in ranges]
            for xorb_hash, ranges in answer.fetches.items()
        }
        return JSONResponse({**_terms_json(answer), "fetch_info": fetches})

    async def _reconstruct_v2(self, request: Request) -> Response:
        answer = await run_in_threadpool(self._reconstruct, request)
        fetches = {
            xorb_hash: [_v2_fetch(self._sign(request, xorb_hash, batch), batch) for batch in _batches(ranges)]
            for xorb_hash, ranges in answer.fetches.items()
        }
        return JSONResponse({**_terms_json(answer), "xorbs": fetches})

    def _reconstruct(self, request: Request) -> Reconstruction:
        self._require_token(request, write=False)
        file_hash = _hash_in(request)
        try:
            info = self._store.file(file_hash)
        except KeyError:
            raise Refusal(404, f"no file has the Xet hash {file_hash}") from None
        start, stop = _file_range(request.headers.get("range"), info.size_bytes)
        return reconstruct(info.terms, self._store.chunks, start, stop)

    def _sign(self, request: Request, xorb_hash: str, ranges: Sequence[XorbRange]) -> str:
        """A URL that gives access to these ranges of the xorb, all together or one by one."""
        listed = ",".join(map(_inclusive, ranges))
        path, _, query = self._urls.sign("GET", _xorb_path(request, xorb_hash), {"ranges": listed}).partition("?")
        return str(request.url.replace(path=path, query=query))

    async def _send_xorb(self, request: Request) -> Response:
        xorb_hash = _hash_in(request)
        self._urls.check("GET", _xorb_path(request, xorb_hash), request.query_params)
        asked = request.headers.get("range", "").removeprefix("bytes=").split(",")
        if not set(asked) <= set(request.query_params["ranges"].split(",")):
            raise forbidden("the Range header asks for bytes that the URL was not signed for")
        path = self._store.xorb_path(xorb_hash)
        return send_range(path, asked[0]) if len(asked) == 1 else send_ranges(path, asked)

    def _require_token(self, request: Request, *, write: bool) -> None:
        self._tokens.check(request.headers.get("authorization", ""), write=write, now=time.time())


def _answering(handler: _Handler) -> _Handler:
    """The handler with its refusals turned into answers, whatever application it is mounted in."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return JSONResponse({"error": refusal.message}, refusal.status)
        except XetFormatError as error:
            return JSONResponse({"error": str(error)}, 400)
        except ClientDisconnect:
            return Response(status_code=400)

    return answer


async def _absent(request: Request) -> Response:
    raise Refusal(404, f"{request.url.path} does not exist here")


def _xorb_path(request: Request, xorb_hash: str) -> str:
    """The path at which `_send_xorb` is found, wherever the routes are mounted."""
    return f"{request.scope.get('root_path', '')}/xorbs/{xorb_hash}"


def _hash_in(request: Request) -> str:
    return parse_hash(request.path_params["hash"])


async def _receive_body(request: Request, file: BinaryIO) -> int:
    size_bytes = 0
    async for block in request.stream():
        size_bytes += len(block)
        if size_bytes > MAX_XORB_BYTES:
            raise bad_request(f"the xorb is longer than {MAX_XORB_BYTES} bytes")
        file.write(block)
    return size_bytes


async def _discard_body(request: Request) -> None:
    # An answer before the end of the upload would reset the connection, which clients take for a failure.
    async for _ in request.stream():
        pass


async def _read_body(request: Request, *, limit_bytes: int) -> bytes:
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > limit_bytes:
            raise bad_request(f"the shard is longer than {limit_bytes} bytes")
    return bytes(body)


def _file_range(header: str | None, size_bytes: int) -> tuple[int, int]:
    """The bytes `start` to `stop`, exclusive, that a Range header asks for."""
    if header is None:
        return 0, size_bytes
    match = _FILE_RANGE.fullmatch(header)
    if match is None:
        raise bad_request(f"a Range is bytes=FIRST-LAST, not {header}")
    first = int(match[1])
    stop = int(match[2]) + 1 if match[2] else size_bytes
    if first >= size_bytes:
        raise Refusal(416, f"the file has {size_bytes} bytes")
    if stop <= first:
        raise bad_request(f"the Range {header} ends before it begins")
    return first, min(stop, size_bytes)


def _terms_json(answer: Reconstruction) -> dict[str, Any]:
    terms = [
        {"hash": term.xorb_hash, "unpacked_length": term.unpacked_bytes, "range": _span_json(term.start, term.stop)}
        for term in answer.terms
    ]
    return {"offset_into_first_range": answer.skip_bytes, "terms": terms}


def _v1_fetch(url: str, part: XorbRange) -> dict[str, Any]:
    chunks = _span_json(part.chunk_start, part.chunk_stop)
    return {"url": url, "range": chunks, "url_range": _span_json(part.start, part.stop - 1)}


def _v2_fetch(url: str, parts: Sequence[XorbRange]) -> dict[str, Any]:
    ranges = [
        {"chunks": _span_json(part.chunk_start, part.chunk_stop), "bytes": _span_json(part.start, part.stop - 1)}
        for part in parts
    ]
    return {"url": url, "ranges": ranges}


def _span_json(start: int, end: int) -> dict[str, int]:
    return {"start": start, "end": end}


def _batches(ranges: Sequence[XorbRange]) -> Iterator[Sequence[XorbRange]]:
    for start in range(0, len(ranges), _RANGES_PER_URL):
        yield ranges[start : start + _RANGES_PER_URL]


def _inclusive(part: XorbRange) -> str:
    """The bytes as HTTP writes them: first and last."""
    return f"{part.start}-{part.stop - 1}"
