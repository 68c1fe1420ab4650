"""The git-lfs protocol for uploads, and the large files of a repo.

Protocol: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from hubmerge.localhub.call import Call
from hubmerge.localhub.commits import object_entry
from hubmerge.localhub.names import check_sha256, check_size, kind_of, web_prefix
from hubmerge.localhub.records import Repo
from hubmerge.localhub.refusals import Refusal, bad_request
from hubmerge.localhub.router import Endpoint
from hubmerge.localhub.routes_content import completion_address, part_address, upload_address


def _batch(call: Call) -> Response:
    """Says for each announced content where to put it; those already there get no instructions."""
    call.writer()  # any writer may upload: pull requests are open to all who see the repo
    repo = call.downloadable(call.repo())
    body = call.json()
    if body.get("operation") != "upload":
        raise bad_request("Only uploads: files are downloaded from /resolve/")
    sizes = [(check_sha256(each.get("oid")), check_size(each.get("size"))) for each in call.records("objects")]
    multipart = "multipart" in body.get("transfers", []) and any(_needs_parts(call, size) for _, size in sizes)
    objects = [_object(call, repo, sha256, size, multipart=multipart) for sha256, size in sizes]
    return JSONResponse({"transfer": "multipart" if multipart else "basic", "objects": objects})


def _object(call: Call, repo: Repo, sha256: str, size: int, *, multipart: bool) -> dict[str, Any]:
    if object_entry(call.state, repo, sha256) is not None:
        return {"oid": sha256, "size": size}
    if multipart and _needs_parts(call, size):
        upload = _upload_in_parts(call, repo, sha256, size)
    else:
        upload = {"href": upload_address(call, repo, sha256, size=size)}
    verify = {"href": f"{call.origin}/{web_prefix(repo.kind)}{repo.id}.git/info/lfs/verify"}
    return {"oid": sha256, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": verify}}


def _upload_in_parts(call: Call, repo: Repo, sha256: str, size: int) -> dict[str, Any]:
    part_bytes = call.state.options.part_bytes
    count = -(-size // part_bytes)
    parts = {f"{number:05d}": part_address(call, sha256, number) for number in range(1, count + 1)}
    href = completion_address(call, repo, sha256, size=size)
    return {"href": href, "header": {"chunk_size": str(part_bytes), **parts}}


def _needs_parts(call: Call, size: int) -> bool:
    return size > call.state.options.part_bytes


def _verify(call: Call) -> Response:
    repo = call.repo()
    call.writer()
    record = call.state.repos.object_record(repo, check_sha256(call.json().get("oid")))
    if record is None:
        raise Refusal(404, "The file was not uploaded")
    return JSONResponse({})


def _list(call: Call) -> Response:
    """Lists every large file ever uploaded to the repo, with the path that main gives it."""
    repo = call.writable(call.repo())
    tree = call.state.repos.tree(repo, call.state.repos.resolve(repo, "main"))
    paths = {entry.sha256: path for path, entry in tree.items()}
    records = call.state.repos.objects(repo)
    return JSONResponse([_listed(sha256, record, paths.get(sha256)) for sha256, record in records.items()])


def _listed(sha256: str, record: Mapping[str, Any], path: str | None) -> dict[str, Any]:
    return {
        "fileOid": sha256,
        "oid": sha256,
        "filename": path or "",
        "ref": "refs/heads/main" if path else None,
        "pushedAt": record["pushed_at"],
        "size": record["size"],
    }


def _forget(call: Call) -> Response:
    """Takes large files out of the repo's uploads; commits that name them keep their entries."""
    repo = call.writable(call.repo())
    for sha256 in call.json().get("deletions", {}).get("sha", []):
        call.state.repos.forget_object(repo, check_sha256(sha256))
    return JSONResponse({})


def _duplicate(call: Call) -> Response:
    """Gives another repo the large files of this one, without any bytes travelling."""
    source = call.downloadable(call.repo())
    named = call.json().get("target") or {}
    target = call.writable(call.visible(kind_of(named.get("type")), str(named.get("name"))))
    failed = [failure for file in call.records("files") if (failure := _duplicated(call, source, target, file))]
    return JSONResponse({"failed": failed})


def _duplicated(call: Call, source: Repo, target: Repo, file: Mapping[str, Any]) -> dict[str, str] | None:
    sha256 = check_sha256(file.get("sha256"))
    record = call.state.repos.object_record(source, sha256)
    if record is None:
        return {"sha256": sha256, "error": f"{source.id} has no such file"}
    call.state.repos.remember_object(target, sha256, size=record["size"], xet_hash=record["xet_hash"])
    return None


ENDPOINTS = (
    Endpoint("POST", "/{prefix}{repo}.git/info/lfs/objects/batch", _batch),
    Endpoint("POST", "/{prefix}{repo}.git/info/lfs/verify", _verify),
    Endpoint("GET", "/api/{kind}/{repo}/lfs-files", _list),
    Endpoint("POST", "/api/{kind}/{repo}/lfs-files/batch", _forget),
    Endpoint("POST", "/api/{kind}/{repo}/lfs-files/duplicate", _duplicate),
)
