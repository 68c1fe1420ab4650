"""A server of byte ranges that misbehaves on demand: what the protocol allows to go wrong, one answer at a time.

It plays the Hub (`/org/name/resolve/<sha>/<file>`, with a token) and, under another host name, the store that large
files are redirected to (`/store/<file>?signature=<n>`, which refuses tokens and expired signatures as S3 does).
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"
REPO = "org/name"


@dataclass(frozen=True)
class Answer:
    """What would honestly be sent: a fault is a function from this to what is sent instead."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    stall_seconds: float = 0.0


@dataclass(frozen=True)
class Seen:
    """One request."""

    path: str
    headers: Message


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: clients that hang up are what the tests are about."""


@dataclass
class RangeServer:
    """Files over HTTP.

    Attributes:
        content: By path in the repo.
        large: The paths that are redirected to the store.
        faults: Applied to the next answers that carry bytes, one each.
        redirect_headers: Added to the Hub's redirects.
    """

    content: dict[str, bytes]
    large: set[str] = field(default_factory=set)
    faults: deque[Callable[[Answer], Answer]] = field(default_factory=deque)
    redirect_headers: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    signature: int = 0
    expired: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._stopping = threading.Event()
        self._http = _QuietServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def hub_requests(self) -> list[Seen]:
        return [request for request in self.seen if not request.path.startswith("/store/")]

    @property
    def store_requests(self) -> list[Seen]:
        return [request for request in self.seen if request.path.startswith("/store/")]

    def close(self) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.seen.append(Seen(handler.path, handler.headers))
        answer = self._answer(handler)
        handler.send_response_only(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer.body)
        handler.wfile.flush()
        if answer.stall_seconds:
            self._stopping.wait(answer.stall_seconds)
        if len(answer.body) != int(answer.headers["Content-Length"]):
            handler.close_connection = True

    def _answer(self, handler: BaseHTTPRequestHandler) -> Answer:
        url = urlsplit(handler.path)
        path = unquote(url.path)
        name = path.removeprefix(f"/{REPO}/resolve/{SHA}/").removeprefix("/store/")
        if path.startswith("/store/"):
            signature = int(parse_qs(url.query)["signature"][0])
            if signature in self.expired or "Authorization" in handler.headers:
                return Answer(403, {"Content-Length": "0"}, b"")
        elif name in self.large:
            return self._redirect(name)
        answer = honest_answer(self.content[name], handler.headers["Range"])
        return self.faults.popleft()(answer) if self.faults else answer

    def _redirect(self, name: str) -> Answer:
        self.signature += 1
        location = f"http://localhost:{self.port}/store/{name}?signature={self.signature}"
        return Answer(302, {"Location": location, "Content-Length": "0", **self.redirect_headers}, b"")


def honest_answer(content: bytes, range_header: str) -> Answer:
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", range_header)
    assert match is not None
    start, last = int(match[1]), int(match[2])
    body = content[start : last + 1]
    stated = {"Content-Range": f"bytes {start}-{last}/{len(content)}", "Content-Length": str(len(body))}
    return Answer(206, stated, body)


def failing(status: int, **headers: str) -> Callable[[Answer], Answer]:
    """An error instead of the bytes; underscores in header names become dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda answer: Answer(status, {"Content-Length": "0", **named}, b"")


def cut_after(size_bytes: int) -> Callable[[Answer], Answer]:
    """The connection closes in the middle of the body."""
    return lambda answer: Answer(answer.status, answer.headers, answer.body[:size_bytes])


def stalled_after(size_bytes: int, *, seconds: float) -> Callable[[Answer], Answer]:
    """The body stops, and the connection stays open."""
    return lambda answer: Answer(answer.status, answer.headers, answer.body[:size_bytes], stall_seconds=seconds)


def ignoring_range(content: bytes) -> Callable[[Answer], Answer]:
    """The whole file, whatever was asked for."""
    return lambda answer: Answer(200, {"Content-Length": str(len(content))}, content)


def stating(**headers: str) -> Callable[[Answer], Answer]:
    """The right bytes under wrong headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda answer: Answer(answer.status, {**answer.headers, **named}, answer.body)
