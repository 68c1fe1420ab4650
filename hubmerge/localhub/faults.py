"""Faults on demand: what a test, or a rehearsal, wants to go wrong."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hubmerge.localhub.refusals import bad_request


class DroppedConnection(Exception):
    """Ends an answer in the middle."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, for the requests whose "METHOD /path" the regex matches somewhere.

    Attributes:
        match: Regular expression; the path is as sent, without the query.
        status: Answers this status; None lets the request through, to be spoiled by the fields below.
        headers: Headers of that answer, `Retry-After` for instance.
        body: Body of that answer.
        apply_first: Carries the request out before answering `status`: a commit that succeeds, then times out.
        delay_seconds: Waits before anything else.
        drop_after_bytes: Closes the connection after so many bytes of the body.
        stall_after_bytes: Sends nothing more after so many bytes of the body, and keeps the connection open.
        wrong_bytes: Inverts so many of the first bytes of the body.
        ignore_range: Hides the Range header from the server, which then answers 200 with the whole file.
        count: Requests that it hits; None for all.
        skip: Matching requests that it lets pass first.
    """

    match: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    apply_first: bool = False
    delay_seconds: float = 0.0
    drop_after_bytes: int | None = None
    stall_after_bytes: int | None = None
    wrong_bytes: int = 0
    ignore_range: bool = False
    count: int | None = None
    skip: int = 0


class Faults:
    """The faults that are set; thread-safe, since tests add them while the server runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hits: list[tuple[Fault, re.Pattern[str], int]] = []

    def add(self, match: str, **details: Any) -> Fault:
        """Sets a fault and returns it; the first one set that matches a request and is not used up hits it.

        Args:
            match: See `Fault`.
            **details: The other fields of `Fault`.
        """
        unknown = sorted(details.keys() - {each.name for each in fields(Fault)})
        if unknown:
            raise bad_request(f"A fault has no field {', '.join(unknown)}")
        fault = Fault(match, **details)
        with self._lock:
            self._hits.append((fault, re.compile(match), 0))
        return fault

    def clear(self) -> None:
        """Takes every fault away."""
        with self._lock:
            self._hits.clear()

    def to_json(self) -> list[dict[str, Any]]:
        """Returns the faults with `seen`, how many requests each has matched."""
        with self._lock:
            return [{**asdict(fault), "seen": seen} for fault, _, seen in self._hits]

    def has_hit(self, fault: Fault) -> bool:
        """Returns whether a fault that is set has hit a request."""
        with self._lock:
            return any(each is fault and seen > fault.skip for each, _, seen in self._hits)

    def hit(self, method: str, path: str) -> Fault | None:
        """Returns the fault for this request, and counts it."""
        with self._lock:
            for index, (fault, pattern, seen) in enumerate(self._hits):
                last = None if fault.count is None else fault.skip + fault.count
                if (last is None or seen < last) and pattern.search(f"{method} {path}"):
                    self._hits[index] = (fault, pattern, seen + 1)
                    if seen >= fault.skip:
                        return fault
        return None


class FaultInjection:
    """ASGI middleware that lets the faults happen."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, unless a fault hits it."""
        fault = None
        if scope["type"] == "http" and not scope["path"].startswith("/_localhub/"):
            fault = self._faults.hit(scope["method"], scope["raw_path"].decode("latin-1"))
        if fault is None:
            await self._app(scope, receive, send)
            return
        with suppress(DroppedConnection):  # an answer that never ends makes the server close the connection
            await self._with_fault(fault, scope, receive, send)

    async def _with_fault(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(fault.delay_seconds)
        if fault.ignore_range:
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]
        if fault.status is None:
            await self._app(scope, receive, _SpoiledSend(fault, receive, send))
            return
        if fault.apply_first:
            await self._app(scope, receive, _discard)
        answer = Response(fault.body, fault.status, dict(fault.headers), "text/plain")
        await answer(scope, receive, _SpoiledSend(fault, receive, send))


class _SpoiledSend:
    """The send channel of one answer, with its bytes inverted, cut off or held back."""

    def __init__(self, fault: Fault, receive: Receive, send: Send) -> None:
        self._fault = fault
        self._receive = receive
        self._send = send
        self._sent = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        body: bytes = message.get("body", b"")
        wrong = max(0, min(len(body), self._fault.wrong_bytes - self._sent))
        body = bytes(byte ^ 0xFF for byte in body[:wrong]) + body[wrong:]
        limits = (self._fault.drop_after_bytes, self._fault.stall_after_bytes)
        limit = min((each for each in limits if each is not None), default=None)
        if limit is None or self._sent + len(body) < limit:
            self._sent += len(body)
            await self._send({**message, "body": body})
            return
        await self._send({**message, "body": body[: limit - self._sent], "more_body": True})
        if self._fault.drop_after_bytes is None:
            await self._wait_for_the_client_to_leave()
        raise DroppedConnection

    async def _wait_for_the_client_to_leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _discard(message: Message) -> None:
    pass
