"""One Hub being served: its open folder, its socket and its uvicorn."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import IO

import uvicorn

from hubmerge.errors import HubServerError
from hubmerge.localhub.faults import Faults
from hubmerge.localhub.options import HubOptions
from hubmerge.localhub.request_log import RequestLog
from hubmerge.localhub.server import build_app
from hubmerge.localhub.state import State, lock_folder, open_state

_KEEP_ALIVE_SECONDS = 120
"""Longer than clients pause: one that reuses a connection just as it is closed sees a failure."""

_STOP_SECONDS = 1
"""How long answers in progress may take to end when the Hub stops."""


class HubServer:
    """A Hub that can be started once and stopped once.

    Attributes:
        state: What is stored, from the start on.
        endpoint: Where it listens, from the start on.
    """

    state: State
    endpoint: str

    def __init__(self, root: Path, *, host: str, port: int, options: HubOptions) -> None:
        self.faults = Faults()
        self.log = RequestLog()
        self._root = root
        self._address = (host, port)
        self._options = options
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serves from a thread; connections are accepted when this returns."""
        self._open()
        self._server = self._uvicorn()
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="localhub", daemon=True)
        self._thread.start()  # the socket listens already, so an early request waits instead of failing

    def stop(self) -> None:
        """Ends the thread and lets the folder go."""
        assert self._thread is not None, "stopped without a start"
        self._server.should_exit = True
        self._thread.join()
        self._close()

    def _open(self) -> None:
        self._folder_lock: IO[str] = lock_folder(self._root)
        try:
            self._socket = _listen(*self._address)
            self.state = open_state(self._root, self._options)
        except BaseException:
            self._folder_lock.close()
            raise
        host, port = self._socket.getsockname()[:2]
        self.endpoint = f"http://{host}:{port}"

    def _close(self) -> None:
        self._socket.close()
        self._folder_lock.close()

    def _uvicorn(self) -> uvicorn.Server:
        config = uvicorn.Config(
            build_app(self.state, faults=self.faults, log=self.log),
            http="h11",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="critical",
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        return uvicorn.Server(config)


def _listen(host: str, port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off, 40 ms per answer, only for sockets that say that they are TCP
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise HubServerError(
            f"the local Hub cannot listen on {host}:{port}: {error.strerror}", hint="choose another --port"
        ) from error
    listener.listen(128)
    return listener
