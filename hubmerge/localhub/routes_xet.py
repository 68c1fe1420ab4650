"""Tokens for the Xet store, which itself is mounted under /cas; a Hub without Xet does not know these addresses."""

from __future__ import annotations

import time

from starlette.responses import JSONResponse, Response

from hubmerge.localhub.call import Call
from hubmerge.localhub.records import FileEntry, Repo
from hubmerge.localhub.refusals import Refusal
from hubmerge.localhub.router import Endpoint


def xet_headers(call: Call, repo: Repo, entry: FileEntry, *, commit: str) -> dict[str, str]:
    """Returns what tells a client that it may fetch this file by Xet; nothing if it may not."""
    if call.state.cas is None or entry.xet_hash is None:
        return {}
    route = f"{call.origin}/api/{repo.kind}/{repo.id}/xet-read-token/{commit}"
    return {"X-Xet-Hash": entry.xet_hash, "Link": f'<{route}>; rel="xet-auth"'}


def _read_token(call: Call) -> Response:
    repo = call.downloadable(call.repo())
    return _token(call, repo, write=False)


def _write_token(call: Call) -> Response:
    call.writer()  # any writer may upload: pull requests are open to all who see the repo
    return _token(call, call.downloadable(call.repo()), write=True)


def _token(call: Call, repo: Repo, *, write: bool) -> Response:
    if call.state.cas is None:
        raise Refusal(404, "This Hub has no Xet store")
    token, expiry = call.state.cas.issue_token(scope=f"{repo.kind}/{repo.id}", write=write, now=time.time())
    url = f"{call.origin}/cas"
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expiry)}
    return JSONResponse({"casUrl": url, "accessToken": token, "exp": expiry}, headers=headers)


ENDPOINTS = (
    Endpoint("GET", "/api/{kind}/{repo}/xet-read-token/{rev}", _read_token),
    Endpoint("GET", "/api/{kind}/{repo}/xet-write-token/{rev}", _write_token),
)
