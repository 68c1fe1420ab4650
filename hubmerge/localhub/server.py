"""The ASGI application: who calls, which endpoint answers, and how a refusal is sent."""

from __future__ import annotations

import inspect
import logging
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import BinaryIO, cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from hubmerge.localhub import (
    routes_accounts,
    routes_content,
    routes_control,
    routes_discussions,
    routes_files,
    routes_jobs,
    routes_lfs,
    routes_refs,
    routes_repos,
    routes_search,
    routes_trees,
    routes_upload,
    routes_xet,
)
from hubmerge.localhub.accounts import Identity
from hubmerge.localhub.call import Call
from hubmerge.localhub.faults import FaultInjection, Faults
from hubmerge.localhub.limits import BandwidthLimit, RequestBudget
from hubmerge.localhub.refusals import Refusal
from hubmerge.localhub.request_log import RequestLog, RequestLogging
from hubmerge.localhub.router import Endpoint, Match, find_endpoint
from hubmerge.localhub.state import State

ENDPOINTS: Sequence[Endpoint] = (
    *routes_content.ENDPOINTS,
    *routes_accounts.ENDPOINTS,
    *routes_lfs.ENDPOINTS,
    *routes_files.ENDPOINTS,
    *routes_jobs.ENDPOINTS,
    *routes_trees.ENDPOINTS,
    *routes_refs.ENDPOINTS,
    *routes_upload.ENDPOINTS,
    *routes_xet.ENDPOINTS,
    *routes_discussions.ENDPOINTS,
    *routes_search.ENDPOINTS,
    *routes_repos.ENDPOINTS,
)
"""All of the Hub's API; the last ones match whatever names a repo and nothing else."""

_BODY_IN_MEMORY_BYTES = 1024 * 1024
_OPEN_PATHS = ("/cdn/", "/_localhub/")
_log = logging.getLogger("hubmerge.localhub")


def build_app(state: State, *, faults: Faults, log: RequestLog) -> ASGIApp:
    """Returns the whole application: log, faults and limits around the Hub and its Xet store."""
    options = state.options
    budget = None
    if options.requests_per_window is not None:
        budget = RequestBudget(options.requests_per_window, window_seconds=options.window_seconds)
    hub = HubApp(state, (*routes_control.endpoints(faults, log), *ENDPOINTS), budget)
    store = [] if state.cas is None else [Mount("/cas", routes=state.cas.routes())]
    app: ASGIApp = Starlette(routes=[*store, Mount("/", app=hub)])
    if options.bytes_per_second is not None:
        app = BandwidthLimit(app, options.bytes_per_second)
    return RequestLogging(FaultInjection(app, faults), log)


class HubApp:
    """Answers requests by the table of endpoints."""

    def __init__(self, state: State, endpoints: Sequence[Endpoint], budget: RequestBudget | None) -> None:
        self._state = state
        self._endpoints = endpoints
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except Refusal as refusal:
            response = refusal_response(refusal)
        except ClientDisconnect:
            return
        except Exception:
            _log.exception("%s %s", request.method, request.url.path)
            response = refusal_response(Refusal(500, "Internal Server Error"))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("latin-1")
        match = find_endpoint(self._endpoints, request.method, path)
        identity = None
        if not path.startswith(_OPEN_PATHS):
            identity = self._state.accounts.identify(request.headers.get("authorization"))
        request.state.ref = match.params.get("rev")
        request.state.token_name = identity and identity.token.name
        self._spend(path, identity)
        return await _handle(match, Call(self._state, request, match.params, identity, BytesIO()))

    def _spend(self, path: str, identity: Identity | None) -> None:
        if self._budget is not None and not path.startswith(_OPEN_PATHS):
            bucket = "resolvers" if "/resolve/" in path else "api"
            self._budget.spend(bucket, identity.user if identity else "anonymous")


async def _handle(match: Match, call: Call) -> Response:
    handler = match.endpoint.handler
    if inspect.iscoroutinefunction(handler):
        return cast(Response, await handler(call))
    with tempfile.SpooledTemporaryFile(_BODY_IN_MEMORY_BYTES) as body:
        async for block in call.request.stream():
            body.write(block)
        body.seek(0)
        return cast(Response, await run_in_threadpool(handler, replace(call, body=cast(BinaryIO, body))))


def refusal_response(refusal: Refusal) -> Response:
    """Returns the JSON answer of a refusal, with the error headers."""
    # what the client sent may be quoted in the message, line breaks and all
    message = "".join(letter if " " <= letter <= "~" else "?" for letter in refusal.message)
    headers = {"X-Error-Message": message, "X-Request-Id": secrets.token_hex(8), **refusal.headers}
    if refusal.code is not None:
        headers["X-Error-Code"] = refusal.code
    return JSONResponse({"error": refusal.message, **refusal.extra}, refusal.status, headers)
