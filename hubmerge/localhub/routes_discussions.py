"""Discussions and pull requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from starlette.responses import JSONResponse, Response

from hubmerge.localhub.accounts import may_write
from hubmerge.localhub.call import Call
from hubmerge.localhub.commits import merge_pull_request
from hubmerge.localhub.discussions import (
    Discussion,
    Event,
    comment_event,
    edited_comment,
    status_event,
    title_event,
)
from hubmerge.localhub.records import Repo
from hubmerge.localhub.refusals import Refusal, bad_request, forbidden
from hubmerge.localhub.router import Endpoint
from hubmerge.localhub.views import discussion_details, discussion_view

_PAGE_ENTRIES = 50


def _list(call: Call) -> Response:
    repo = call.repo()
    found = [each for each in call.state.discussions.all(repo) if _fits(call, each)]
    page_number = call.request.query_params.get("p", "0")
    if not page_number.isdecimal():
        raise bad_request("Invalid page number")
    start = int(page_number) * _PAGE_ENTRIES
    page = [discussion_view(repo, each) for each in found[start : start + _PAGE_ENTRIES]]
    return JSONResponse({"discussions": page, "count": len(found), "start": start})


def _fits(call: Call, discussion: Discussion) -> bool:
    query = call.request.query_params
    kind = "pull_request" if discussion.is_pull_request else "discussion"
    state = "closed" if discussion.status in ("closed", "merged") else "open"
    return (
        query.get("type", "all") in ("all", kind)
        and query.get("status", "all") in ("all", state)
        and query.get("author", discussion.author) == discussion.author
    )


def _create(call: Call) -> Response:
    """Opens a discussion or an empty pull request, which begins as a draft."""
    repo = call.downloadable(call.repo())
    author = call.writer().user
    body = call.json()
    title = str(body.get("title") or "")
    if len(title) < 3:
        raise bad_request("The title must have at least 3 characters")
    with call.state.lock:
        repo = call.repo()
        base = call.state.repos.resolve(repo, "main").oid if body.get("pullRequest") else None
        opened = call.state.discussions.create(
            repo,
            title=title,
            description=str(body.get("description") or ""),
            author=author,
            status="draft" if base else "open",
            base_commit=base,
        )
        if base is not None:
            call.state.repos.save(replace(repo, pulls={**repo.pulls, str(opened.num): base}))
    return JSONResponse({"num": opened.num, "pullRequest": opened.is_pull_request}, 201)


def _details(call: Call) -> Response:
    repo = call.repo()
    discussion = call.state.discussions.get(repo, _number(call))
    return JSONResponse(discussion_details(call.state, repo, discussion, diff=call.flag("diff")))


def _comment(call: Call) -> Response:
    event = comment_event(call.writer().user, str(call.json().get("comment") or ""))
    _update(call, lambda discussion: discussion.with_event(event))
    return JSONResponse({"newMessage": event})


def _change_title(call: Call) -> Response:
    title = str(call.json().get("title") or "")
    user = call.writer().user

    def change(discussion: Discussion) -> Discussion:
        return discussion.with_event(title_event(user, discussion.title, title), title=title)

    changed = _update(call, change, owners_only=True)
    return JSONResponse({"newTitle": changed.events[-1]})


def _change_status(call: Call) -> Response:
    body = call.json()
    status = body.get("status")
    if status not in ("open", "closed", "draft"):
        raise bad_request('"status" must be "open", "closed" or "draft"')
    user = call.writer().user
    event = status_event(user, status)

    def change(discussion: Discussion) -> Discussion:
        if discussion.status == "merged":
            raise bad_request("This pull request is merged")
        if body.get("comment"):
            discussion = discussion.with_event(comment_event(user, str(body["comment"])))
        return discussion.with_event(event, status=status)

    _update(call, change, owners_only=True)
    return JSONResponse({"newStatus": event})


def _merge(call: Call) -> Response:
    repo = call.writable(call.repo())
    user = call.writer().user
    comment = call.json().get("comment")
    commit = merge_pull_request(call.state, repo, _number(call), user=user)
    if comment:
        _update(call, lambda discussion: discussion.with_event(comment_event(user, str(comment))))
    return JSONResponse({"mergeCommitId": commit.oid})


def _edit_comment(call: Call) -> Response:
    text = str(call.json().get("content") or "")
    return _replace_comment(call, lambda event: edited_comment(event, text=text, hidden=False))


def _hide_comment(call: Call) -> Response:
    return _replace_comment(call, lambda event: edited_comment(event, text="", hidden=True))


def _replace_comment(call: Call, edit: Callable[[Event], Event]) -> Response:
    user = call.writer().user
    wanted = call.params["comment"]

    def change(discussion: Discussion) -> Discussion:
        old = next((event for event in discussion.events if event["id"] == wanted), None)
        if old is None or old["type"] != "comment":
            raise Refusal(404, "No such comment")
        if old["author"]["name"] != user:
            raise forbidden("Only its author may change a comment")
        return replace(discussion, events=tuple(edit(each) if each is old else each for each in discussion.events))

    changed = _update(call, change)
    return JSONResponse({"updatedComment": next(event for event in changed.events if event["id"] == wanted)})


def _update(call: Call, change: Callable[[Discussion], Discussion], *, owners_only: bool = False) -> Discussion:
    with call.state.lock:
        repo = call.downloadable(call.repo())
        discussion = call.state.discussions.get(repo, _number(call))
        if owners_only and not _may_manage(call, repo, discussion):
            raise forbidden("Only its author and those who may write to the repo may do this")
        return call.state.discussions.save(repo, change(discussion))


def _may_manage(call: Call, repo: Repo, discussion: Discussion) -> bool:
    return may_write(call.identity, repo) or call.user().user == discussion.author


def _number(call: Call) -> int:
    return int(call.params["number"])


ENDPOINTS = (
    Endpoint("GET", "/api/{kind}/{repo}/discussions", _list),
    Endpoint("POST", "/api/{kind}/{repo}/discussions", _create),
    Endpoint("GET", "/api/{kind}/{repo}/discussions/{number}", _details),
    Endpoint("POST", "/api/{kind}/{repo}/discussions/{number}/comment", _comment),
    Endpoint("POST", "/api/{kind}/{repo}/discussions/{number}/comment/{comment}/edit", _edit_comment),
    Endpoint("POST", "/api/{kind}/{repo}/discussions/{number}/comment/{comment}/hide", _hide_comment),
    Endpoint("POST", "/api/{kind}/{repo}/discussions/{number}/title", _change_title),
    Endpoint("POST", "/api/{kind}/{repo}/discussions/{number}/status", _change_status),
    Endpoint("POST", "/api/{kind}/{repo}/discussions/{number}/merge", _merge),
)
