"""What was asked of the Hub and what it answered, for tests and for the curious."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import overload

from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEPT_REQUESTS = 100_000
"""Older requests are dropped, so that a Hub left running does not fill the memory."""


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        path: As sent, still quoted, without the query.
        status: Of the answer; 0 until it begins.
        sent_bytes: Bytes of the answer's body handed to the connection so far.
        range: The Range header.
        ref: The revision that the path names, unquoted.
        token_name: Name of the token used, never its value.
    """

    method: str
    path: str
    query: str
    status: int = 0
    sent_bytes: int = 0
    range: str | None = None
    ref: str | None = None
    token_name: str | None = None


class RequestLog(Sequence[Request]):
    """The requests in the order of their arrival; a record grows until its answer is complete."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[int, Request] = {}
        self._next = 0

    def clear(self) -> None:
        """Forgets every request."""
        with self._lock:
            self._records.clear()

    def matching(self, pattern: str) -> list[Request]:
        """Returns the requests in whose "METHOD /path" the regular expression is found."""
        return [record for record in self if re.search(pattern, f"{record.method} {record.path}")]

    def open(self, record: Request) -> int:
        """Adds a record and returns its key for `update`."""
        with self._lock:
            key = self._next
            self._next += 1
            self._records[key] = record
            if len(self._records) > KEPT_REQUESTS:
                self._records.pop(next(iter(self._records)))
        return key

    def update(self, key: int, change: Callable[[Request], Request]) -> None:
        """Replaces a record, if it was not cleared meanwhile."""
        with self._lock:
            if key in self._records:
                self._records[key] = change(self._records[key])

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Request]:
        with self._lock:
            return iter(list(self._records.values()))

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | Sequence[Request]:
        return list(self)[index]


class RequestLogging:
    """ASGI middleware that keeps the log; the Hub inside adds `ref` and `token_name` to the scope's state."""

    def __init__(self, app: ASGIApp, log: RequestLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on and notes how it is answered."""
        if scope["type"] != "http" or scope["path"].startswith("/_localhub/"):
            await self._app(scope, receive, send)
            return
        noted = scope.setdefault("state", {})
        key = self._log.open(_arrived(scope))

        async def logged_send(message: Message) -> None:
            # before it is sent, so that a client that has its answer finds the record complete
            self._log.update(key, partial(_answered, message=message, noted=noted))
            await send(message)

        await self._app(scope, receive, logged_send)


def _arrived(scope: Scope) -> Request:
    headers = dict(scope["headers"])
    return Request(
        method=scope["method"],
        path=scope["raw_path"].decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        range=headers[b"range"].decode("latin-1") if b"range" in headers else None,
    )


def _answered(record: Request, *, message: Message, noted: Mapping[str, str]) -> Request:
    if message["type"] == "http.response.start":
        return replace(record, status=message["status"], ref=noted.get("ref"), token_name=noted.get("token_name"))
    body = b"" if record.method == "HEAD" else message.get("body", b"")
    return replace(record, sent_bytes=record.sent_bytes + len(body))
