"""Repos as a whole: create, delete, rename, settings, and what is known of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from starlette.responses import JSONResponse, Response

from hubmerge.localhub.call import Call
from hubmerge.localhub.commits import first_commit
from hubmerge.localhub.names import check_repo_id, kind_of
from hubmerge.localhub.records import Gating, Repo, timestamp
from hubmerge.localhub.refusals import bad_request, conflict, entry_not_found, forbidden
from hubmerge.localhub.router import Endpoint
from hubmerge.localhub.safetensors_headers import read_header
from hubmerge.localhub.views import chosen_fields, repo_page, repo_view


def _create(call: Call) -> Response:
    identity = call.writer()
    body = call.json()
    kind, repo_id = call.repo_in_body(body)
    repo = Repo(kind, check_repo_id(repo_id), timestamp(), private=_is_private(body) or False, sdk=body.get("sdk"))
    if not identity.owns(repo.namespace):
        raise forbidden(f"You don't have the rights to create a {repo.type} under the namespace {repo.namespace}")
    url = repo_page(call.origin, repo)
    with call.state.lock:
        existing = call.state.repos.find(kind, repo_id)
        if existing is not None and existing.id == repo_id:
            raise conflict(f"You already created this {repo.type} repo", url=url)
        call.state.repos.forget_alias(kind, repo_id)
        first_commit(call.state, repo, user=identity.user)
    return JSONResponse({"url": url, "name": repo_id})


def _delete(call: Call) -> Response:
    kind, repo_id = call.repo_in_body(call.json())
    with call.state.lock:
        call.state.repos.delete(call.writable(call.visible(kind, repo_id)))
    return JSONResponse({})


def _move(call: Call) -> Response:
    body = call.json()
    kind = kind_of(body.get("type"))
    target = check_repo_id(str(body.get("toRepo")))
    with call.state.lock:
        repo = call.writable(call.visible(kind, str(body.get("fromRepo"))))
        if not call.writer().owns(target.rpartition("/")[0]):
            raise forbidden(f"You don't have the rights to move a repo to {target}")
        taken = call.state.repos.find(kind, target)
        if taken is not None and taken.id == target:
            raise conflict(f"{target} exists already")
        call.state.repos.move(repo, target)
    return JSONResponse({})


def _change_settings(call: Call) -> Response:
    body = call.json()
    with call.state.lock:
        repo = call.writable(call.repo())
        private = _is_private(body)
        gated = body.get("gated", repo.gated)
        if gated not in (False, "auto", "manual"):
            raise bad_request('"gated" must be "auto", "manual" or false')
        private = repo.private if private is None else private
        call.state.repos.save(replace(repo, private=private, gated=cast(Gating, gated)))
    return JSONResponse({"private": private, "gated": gated})


def _is_private(body: Mapping[str, Any]) -> bool | None:
    if "visibility" in body:
        return bool(body["visibility"] == "private")
    return None if body.get("private") is None else bool(body["private"])


def _info(call: Call) -> Response:
    repo = call.repo()
    view = repo_view(call.state, repo, call.commit(repo), blobs=call.flag("blobs"))
    return JSONResponse(chosen_fields(view, call.values("expand")))


def _safetensors_metadata(call: Call) -> Response:
    """Returns the headers of all shards that an index names, on main."""
    repo = call.downloadable(call.repo())
    tree = call.tree(repo)
    path = call.params["path"]
    if path not in tree:
        raise entry_not_found(path)
    try:
        index = json.loads(call.state.blobs.read(tree[path].sha256))
        shards = sorted(set(index["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise bad_request(f"{path} is not an index of safetensors files") from None
    folder = path.rpartition("/")[0]
    files = {shard: f"{folder}/{shard}".lstrip("/") for shard in shards}
    headers = {
        shard: read_header(call.state.blobs.path(tree[file].sha256)) for shard, file in files.items() if file in tree
    }
    return JSONResponse({"index": {"metadata": index.get("metadata", {})}, "headers": headers})


ENDPOINTS = (
    Endpoint("POST", "/api/repos/create", _create),
    Endpoint("DELETE", "/api/repos/delete", _delete),
    Endpoint("POST", "/api/repos/move", _move),
    Endpoint("GET", "/api/{kind}/{repo}/safetensors-metadata/{path}", _safetensors_metadata),
    Endpoint("PUT", "/api/{kind}/{repo}/settings", _change_settings),
    Endpoint("GET", "/api/{kind}/{repo}/revision/{rev}", _info),
    Endpoint("GET", "/api/{kind}/{repo}", _info),
)
