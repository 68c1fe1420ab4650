"""A Hub that only hands out Xet tokens, on a loopback port, for the tests of the Xet store."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from huggingface_hub.utils import get_session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from hubmerge.localhub.cas import XetCas


@dataclass(frozen=True)
class StubHub:
    """Hands out tokens, as a Hub does, and mounts the store under /cas; notes what is asked of it."""

    cas: XetCas
    root: Path
    origin: str
    log: list[str]

    def paths(self, start: str) -> list[Path]:
        return sorted(path for path in (self.root / start).rglob("*") if path.is_file())

    def headers(self, *, write: bool, lifetime_seconds: int = 60) -> dict[str, str]:
        token, _ = self.cas.issue_token(scope="test", write=write, now=time.time(), lifetime_seconds=lifetime_seconds)
        return {"Authorization": f"Bearer {token}"}

    def send(
        self, method: str, path: str, *, write: bool = False, headers: Any = None, body: bytes | None = None
    ) -> Any:
        allowed = self.headers(write=write) if headers is None else headers
        url = path if path.startswith("http") else f"{self.origin}/cas{path}"
        return get_session().request(method, url, headers=allowed, content=body, timeout=30)


class Server:
    """One uvicorn for many stores, since stopping it takes a moment: each test gets its own store."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self._app: Any = None

    def new_stub(self, root: Path) -> StubHub:
        stub = StubHub(XetCas(root, secret=b"secret"), root, self.origin, [])
        self._app = stub_app(stub)
        return stub

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


@contextmanager
def serving() -> Iterator[Server]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        app = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield app
        server.should_exit = True
        thread.join()


def stub_app(stub: StubHub) -> Any:
    async def token(request: Request) -> JSONResponse:
        write = request.path_params["kind"] == "write"
        access_token, expires = stub.cas.issue_token(scope="test", write=write, now=time.time())
        return JSONResponse({"casUrl": f"{stub.origin}/cas", "exp": expires, "accessToken": access_token})

    app = Starlette(routes=[Route("/token/{kind}", token), Mount("/cas", routes=stub.cas.routes())])

    async def logged(scope: Any, receive: Any, send: Any) -> None:
        ranges = dict(scope["headers"]).get(b"range", b"").decode("latin-1")
        stub.log.append(f"{scope['method']} {scope['path']} {ranges}")
        await app(scope, receive, send)

    return logged
