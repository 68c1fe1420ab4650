"""File contents at signed addresses: the part that a CDN and an object store play for the real Hub.

No token counts here, only the signature. A request that brings a token all the same is refused, as object stores do:
that is how a client that leaks tokens to foreign hosts gets noticed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from starlette.responses import JSONResponse, Response

from hubmerge.localhub.call import Call
from hubmerge.localhub.file_answer import file_answer
from hubmerge.localhub.names import check_sha256
from hubmerge.localhub.records import Repo
from hubmerge.localhub.refusals import Refusal, bad_request
from hubmerge.localhub.router import Endpoint
from hubmerge.localhub.state import State

_COPY_BYTES = 1024 * 1024


def download_address(call: Call, sha256: str, *, path: str) -> str:
    """Returns a signed address of a stored content; the file's path is in it for whoever reads the request log."""
    return call.content_origin + call.state.signer.sign("GET", f"/cdn/files/{sha256}/{quote(path)}", {})


def upload_address(call: Call, repo: Repo, sha256: str, *, size: int) -> str:
    """Returns a signed address to which a whole content may be put, for this repo."""
    params = {"kind": repo.kind, "repo": repo.id, "size": str(size)}
    return call.content_origin + call.state.signer.sign("PUT", f"/cdn/uploads/{sha256}", params)


def part_address(call: Call, sha256: str, part: int) -> str:
    """Returns a signed address to which one part, numbered from 1, may be put."""
    return call.content_origin + call.state.signer.sign("PUT", f"/cdn/uploads/{sha256}/parts/{part}", {})


def completion_address(call: Call, repo: Repo, sha256: str, *, size: int) -> str:
    """Returns the signed address that joins the parts; it is the Hub's own, not the object store's."""
    params = {"kind": repo.kind, "repo": repo.id, "size": str(size)}
    return call.origin + call.state.signer.sign("POST", f"/cdn/uploads/{sha256}/complete", params)


def _send_content(call: Call) -> Response:
    _check_address(call)
    sha256 = check_sha256(call.params["sha256"])
    if not call.state.blobs.has(sha256):
        raise Refusal(404, "No such content")
    return file_answer(call.request, call.state.blobs.path(sha256), {"ETag": f'"{sha256}"'})


async def _receive_content(call: Call) -> Response:
    _check_address(call)
    sha256 = check_sha256(call.params["sha256"])
    with call.state.blobs.writer() as writer:
        async for block in call.request.stream():
            writer.write(block)
        writer.keep(sha256=sha256, size=_announced_size(call))
    _remember(call, sha256)
    return Response(headers={"ETag": f'"{sha256}"'})


async def _receive_part(call: Call) -> Response:
    _check_address(call)
    target = _parts_folder(call.state, call.params["sha256"]) / call.params["number"]
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    scratch = call.state.blobs.scratch_path()
    try:
        with scratch.open("wb") as file:
            async for block in call.request.stream():
                digest.update(block)
                file.write(block)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return Response(headers={"ETag": f'"{digest.hexdigest()}"'})


def _complete(call: Call) -> Response:
    _check_address(call)
    sha256 = check_sha256(call.params["sha256"])
    folder = _parts_folder(call.state, sha256)
    count = len(call.records("parts"))
    parts = [folder / str(number) for number in range(1, count + 1)]
    if not all(part.is_file() for part in parts):
        raise bad_request("The parts are not complete")
    _join(call, sha256, parts)
    shutil.rmtree(folder, ignore_errors=True)
    _remember(call, sha256)
    return JSONResponse({})


def _join(call: Call, sha256: str, parts: Iterable[Path]) -> None:
    with call.state.blobs.writer() as writer:
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(_COPY_BYTES):
                    writer.write(block)
        writer.keep(sha256=sha256, size=_announced_size(call))


def _check_address(call: Call) -> None:
    if "authorization" in call.request.headers:
        raise bad_request("Only one auth mechanism allowed: this address is signed, do not send a token to it")
    path = call.request.scope["raw_path"].decode("latin-1")
    call.state.signer.check(call.request.method, path, dict(call.request.query_params))


def _announced_size(call: Call) -> int:
    return int(call.request.query_params["size"])


def _remember(call: Call, sha256: str) -> None:
    query = call.request.query_params
    repo = call.state.repos.find(query["kind"], query["repo"])
    if repo is None:
        raise Refusal(404, "The repository is gone")
    call.state.repos.remember_object(repo, sha256, size=_announced_size(call), xet_hash=None)


def _parts_folder(state: State, sha256: str) -> Path:
    return state.root / "uploads" / check_sha256(sha256)


ENDPOINTS = (
    Endpoint("GET", "/cdn/files/{sha256}/{path}", _send_content),
    Endpoint("PUT", "/cdn/uploads/{sha256}", _receive_content),
    Endpoint("PUT", "/cdn/uploads/{sha256}/parts/{number}", _receive_part),
    Endpoint("POST", "/cdn/uploads/{sha256}/complete", _complete),
)
