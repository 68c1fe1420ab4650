"""Branches, tags, and the squashing of a history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.responses import JSONResponse, Response

from hubmerge.localhub.call import Call
from hubmerge.localhub.names import check_ref_name
from hubmerge.localhub.records import Repo
from hubmerge.localhub.refusals import bad_request, conflict, revision_not_found
from hubmerge.localhub.router import Endpoint


def _list(call: Call) -> Response:
    repo = call.downloadable(call.repo())
    answer: dict[str, Any] = {
        "branches": _refs(repo.branches, "refs/heads/"),
        "tags": _refs(repo.tags, "refs/tags/"),
        "converts": [],
    }
    if call.flag("include_prs"):
        pulls = [
            {"name": f"refs/pr/{num}", "ref": f"refs/pr/{num}", "targetCommit": oid} for num, oid in repo.pulls.items()
        ]
        answer["pullRequests"] = pulls
    return JSONResponse(answer)


def _refs(refs: Mapping[str, str], prefix: str) -> list[dict[str, str]]:
    return [{"name": name, "ref": f"{prefix}{name}", "targetCommit": oid} for name, oid in refs.items()]


def _create_branch(call: Call) -> Response:
    name = check_ref_name(call.params["path"])
    with call.state.lock:
        repo = call.writable(call.repo())
        start = call.state.repos.resolve(repo, call.json().get("startingPoint") or "main")
        _check_new(repo.branches, name)
        call.state.repos.save(replace(repo, branches={**repo.branches, name: start.oid}))
    return JSONResponse({})


def _delete_branch(call: Call) -> Response:
    name = call.params["path"]
    if name == "main":
        raise bad_request("The main branch cannot be deleted")
    with call.state.lock:
        repo = call.writable(call.repo())
        call.state.repos.save(replace(repo, branches=_without(repo.branches, name)))
    return JSONResponse({})


def _create_tag(call: Call) -> Response:
    name = check_ref_name(str(call.json().get("tag", "")))
    with call.state.lock:
        repo = call.writable(call.repo())
        commit = call.commit(repo)
        _check_new(repo.tags, name)
        call.state.repos.save(replace(repo, tags={**repo.tags, name: commit.oid}))
    return JSONResponse({})


def _delete_tag(call: Call) -> Response:
    with call.state.lock:
        repo = call.writable(call.repo())
        call.state.repos.save(replace(repo, tags=_without(repo.tags, call.params["path"])))
    return JSONResponse({})


def _super_squash(call: Call) -> Response:
    """Replaces a branch's history by one commit with the same files."""
    branch = call.params["path"]
    with call.state.lock:
        repo = call.writable(call.repo())
        commit = _squashed(call, repo, branch)
        call.state.repos.save(replace(repo, branches={**repo.branches, branch: commit}))
    return JSONResponse({})


def _squashed(call: Call, repo: Repo, branch: str) -> str:
    if branch not in repo.branches:
        raise revision_not_found(branch)
    tree = call.state.repos.tree(repo, call.state.repos.resolve(repo, branch))
    title = str(call.json().get("message") or "Super-squash")
    user = call.writer().user
    return call.state.repos.write_commit(repo, tree, parent=None, title=title, message="", user=user).oid


def _check_new(refs: Mapping[str, str], name: str) -> None:
    if name in refs:
        raise conflict(f"Reference already exists: {name}")


def _without(refs: Mapping[str, str], name: str) -> dict[str, str]:
    if name not in refs:
        raise revision_not_found(name)
    return {each: oid for each, oid in refs.items() if each != name}


ENDPOINTS = (
    Endpoint("GET", "/api/{kind}/{repo}/refs", _list),
    Endpoint("POST", "/api/{kind}/{repo}/branch/{path}", _create_branch),
    Endpoint("DELETE", "/api/{kind}/{repo}/branch/{path}", _delete_branch),
    Endpoint("POST", "/api/{kind}/{repo}/tag/{rev}", _create_tag),
    Endpoint("DELETE", "/api/{kind}/{repo}/tag/{path}", _delete_tag),
    Endpoint("POST", "/api/{kind}/{repo}/super-squash/{path}", _super_squash),
)
