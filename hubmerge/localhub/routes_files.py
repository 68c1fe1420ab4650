"""Files at `/resolve/`: the small ones at once, the large ones by a redirect to a signed address."""

from __future__ import annotations

from starlette.responses import Response

from hubmerge.localhub.call import Call
from hubmerge.localhub.file_answer import file_answer
from hubmerge.localhub.records import FileEntry
from hubmerge.localhub.refusals import entry_not_found
from hubmerge.localhub.router import Endpoint
from hubmerge.localhub.routes_content import download_address
from hubmerge.localhub.routes_xet import xet_headers


def _resolve(call: Call) -> Response:
    repo = call.downloadable(call.repo())
    if call.params["repo"] != repo.id:  # it has been renamed since
        moved = call.request.scope["raw_path"].decode("latin-1").replace(call.params["repo"], repo.id, 1)
        return Response(None, 307, {"Location": moved})
    commit = call.commit(repo)
    path = call.params["path"]
    entry = call.state.repos.tree(repo, commit).get(path)
    if entry is None:
        raise entry_not_found(path, commit=commit.oid)
    headers = {"X-Repo-Commit": commit.oid}
    if entry.large:
        return _redirect(call, path, entry, headers | xet_headers(call, repo, entry, commit=commit.oid))
    headers["ETag"] = f'"{entry.oid}"'
    return file_answer(call.request, call.state.blobs.path(entry.sha256), headers)


def _redirect(call: Call, path: str, entry: FileEntry, headers: dict[str, str]) -> Response:
    headers["Location"] = download_address(call, entry.sha256, path=path)
    headers["X-Linked-Size"] = str(entry.size)
    headers["X-Linked-ETag"] = f'"{entry.sha256}"'
    return Response(None, 302, headers)


ENDPOINTS = (Endpoint("GET", "/{prefix}{repo}/resolve/{rev}/{path}", _resolve),)
