"""Lists of repos."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from hubmerge.localhub.accounts import may_see
from hubmerge.localhub.call import Call
from hubmerge.localhub.pages import page_of
from hubmerge.localhub.records import Repo
from hubmerge.localhub.router import Endpoint
from hubmerge.localhub.views import chosen_fields, repo_view

_ON_REQUEST = {
    "baseModels": "full",
    "cardData": "cardData",
    "config": "config",
    "safetensors": "full",
    "siblings": "full",
    "usedStorage": "full",
}
"""Fields that a list leaves out unless this query parameter asks for them."""


def _search(call: Call) -> Response:
    """Lists the repos that the caller may see and that fit `author`, `search`, `gated` and every `filter` tag."""
    repos = [repo for repo in call.state.repos.all(call.params["kind"]) if _is_wanted(call, repo)]
    views = [repo_view(call.state, repo, call.state.repos.resolve(repo, "main")) for repo in repos]
    views = _sorted([view for view in views if _has_tags(call, view)], call.request.query_params.get("sort"))
    page, headers = page_of(call, views, size=_page_size(call))
    return JSONResponse([_listed(call, view) for view in page], headers=headers)


def _is_wanted(call: Call, repo: Repo) -> bool:
    query = call.request.query_params
    return (
        may_see(call.identity, repo)
        and query.get("search", "").lower() in repo.id.lower()
        and query.get("author", repo.namespace) == repo.namespace
        and ("gated" not in query or call.flag("gated") == bool(repo.gated))
    )


def _has_tags(call: Call, view: dict[str, Any]) -> bool:
    wanted = {*call.values("filter"), *call.values("pipeline_tag")}
    return wanted <= {*view["tags"], view.get("pipeline_tag")}


def _sorted(views: list[dict[str, Any]], field: str | None) -> list[dict[str, Any]]:
    if field not in ("createdAt", "lastModified"):
        return views
    return sorted(views, key=lambda view: str(view[field]), reverse=True)


def _page_size(call: Call) -> int:
    most = call.state.options.page_entries
    limit = call.request.query_params.get("limit", "")
    return min(int(limit), most) if limit.isdecimal() and int(limit) > 0 else most


def _listed(call: Call, view: dict[str, Any]) -> dict[str, Any]:
    if expand := call.values("expand"):
        return chosen_fields(view, expand)
    return {name: value for name, value in view.items() if name not in _ON_REQUEST or call.flag(_ON_REQUEST[name])}


ENDPOINTS = (Endpoint("GET", "/api/{kind}", _search),)
