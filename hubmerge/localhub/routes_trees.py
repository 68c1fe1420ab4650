"""What is in a repo: trees, chosen paths, and its commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from hubmerge.localhub.call import Call
from hubmerge.localhub.git_objects import tree_ids
from hubmerge.localhub.pages import page_of
from hubmerge.localhub.records import Commit, Repo, Tree
from hubmerge.localhub.refusals import entry_not_found
from hubmerge.localhub.router import Endpoint
from hubmerge.localhub.views import file_view

_EXPANDED_PAGE_ENTRIES = 50
"""With the last commit of each entry the Hub sends shorter pages."""


def _list_tree(call: Call) -> Response:
    repo = call.downloadable(call.repo())
    commit = call.commit(repo)
    tree = call.state.repos.tree(repo, commit)
    folder = call.params.get("path", "").strip("/")
    views = _entries(call, tree)
    if folder and views.get(folder, {"type": "file"})["type"] == "file":
        raise entry_not_found(folder, commit=commit.oid)
    inside = [path for path in views if _is_inside(path, folder, recursive=call.flag("recursive"))]
    most = call.state.options.page_entries
    size = min(_EXPANDED_PAGE_ENTRIES, most) if call.flag("expand") else most
    page, headers = page_of(call, inside, size=size)
    shown = {path: views[path] for path in page}
    return JSONResponse(_shown(call, repo, commit, shown, expand=call.flag("expand")), headers=headers)


def _paths_info(call: Call) -> Response:
    repo = call.downloadable(call.repo())
    commit = call.commit(repo)
    form = call.form()
    paths = form.get("paths", [])
    wanted = {str(path).strip("/") for path in ([paths] if isinstance(paths, str) else paths)}
    expand = str(form.get("expand", "")).strip("[]'").lower() == "true"
    views = _entries(call, call.state.repos.tree(repo, commit))
    shown = {path: views[path] for path in views if path in wanted}
    return JSONResponse(_shown(call, repo, commit, shown, expand=expand))


def _entries(call: Call, tree: Tree) -> dict[str, dict[str, Any]]:
    """Returns every file and every folder, in path order."""
    xet = call.state.cas is not None
    folders = tree_ids({path: entry.oid for path, entry in tree.items()})
    views = {path: {"type": "directory", "oid": oid, "size": 0, "path": path} for path, oid in folders.items() if path}
    views |= {path: file_view(path, entry, xet=xet) for path, entry in tree.items()}
    return {path: views[path] for path in sorted(views)}


def _is_inside(path: str, folder: str, *, recursive: bool) -> bool:
    start = f"{folder}/" if folder else ""
    return path.startswith(start) and (recursive or "/" not in path.removeprefix(start))


def _shown(
    call: Call, repo: Repo, commit: Commit, views: Mapping[str, dict[str, Any]], *, expand: bool
) -> list[dict[str, Any]]:
    if not expand:
        return list(views.values())
    last = _last_commits(call, repo, commit, views)
    return [{**view, "lastCommit": _last_commit_view(last[path])} for path, view in views.items()]


def _last_commits(call: Call, repo: Repo, head: Commit, paths: Iterable[str]) -> dict[str, Commit]:
    """Returns for each file or folder the newest commit that changed it."""
    found: dict[str, Commit] = {}
    open_paths = set(paths)
    history = list(call.state.repos.history(repo, head))
    for commit, parent in zip(history, [*history[1:], None], strict=True):
        after = _ids(call, repo, commit)
        before = _ids(call, repo, parent) if parent else {}
        changed = {path for path in open_paths if after.get(path) != before.get(path)}
        found |= dict.fromkeys(changed, commit)
        open_paths -= changed
    return found


def _ids(call: Call, repo: Repo, commit: Commit) -> dict[str, str]:
    files = {path: entry.oid for path, entry in call.state.repos.tree(repo, commit).items()}
    return tree_ids(files) | files


def _last_commit_view(commit: Commit) -> dict[str, str]:
    return {"id": commit.oid, "title": commit.title, "date": commit.date}


def _commits(call: Call) -> Response:
    repo = call.downloadable(call.repo())
    history = list(call.state.repos.history(repo, call.commit(repo)))
    page, headers = page_of(call, history, size=call.state.options.page_entries)
    formatted = "formatted" in call.values("expand")
    return JSONResponse([_commit_view(commit, formatted=formatted) for commit in page], headers=headers)


def _commit_view(commit: Commit, *, formatted: bool) -> dict[str, Any]:
    view: dict[str, Any] = {
        "id": commit.oid,
        "title": commit.title,
        "message": commit.message,
        "date": commit.date,
        "authors": [{"user": commit.author}],
    }
    if formatted:
        view["formatted"] = {"title": commit.title, "message": commit.message}
    return view


ENDPOINTS = (
    Endpoint("GET", "/api/{kind}/{repo}/tree/{rev}", _list_tree),
    Endpoint("GET", "/api/{kind}/{repo}/tree/{rev}/{path}", _list_tree),
    Endpoint("POST", "/api/{kind}/{repo}/paths-info/{rev}", _paths_info),
    Endpoint("GET", "/api/{kind}/{repo}/commits/{rev}", _commits),
)
