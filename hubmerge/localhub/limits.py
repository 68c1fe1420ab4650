"""Limits that a real Hub has: bandwidth shared by all transfers, and requests per caller and window."""

from __future__ import annotations

import asyncio
import math
import threading
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hubmerge.localhub.refusals import Refusal

CONTENT_PATHS = ("/cdn/", "/cas/")
"""Where file contents travel; everything else is small."""


class Bandwidth:
    """A rate that concurrent transfers share in the order in which they ask."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0

    async def take(self, size_bytes: int) -> None:
        """Waits until so many bytes may have passed."""
        if size_bytes == 0:
            return
        self._free_at = max(self._free_at, time.monotonic()) + size_bytes / self._rate
        await asyncio.sleep(self._free_at - time.monotonic())


class BandwidthLimit:
    """ASGI middleware that slows contents down, each way as on a wire of its own."""

    def __init__(self, app: ASGIApp, bytes_per_second: int) -> None:
        self._app = app
        self._uploads = Bandwidth(bytes_per_second)
        self._downloads = Bandwidth(bytes_per_second)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, with its contents at the shared rate."""
        if scope["type"] != "http" or not scope["path"].startswith(CONTENT_PATHS):
            await self._app(scope, receive, send)
            return

        async def slow_receive() -> Message:
            message = await receive()
            await self._uploads.take(len(message.get("body", b"")))
            return message

        async def slow_send(message: Message) -> None:
            await self._downloads.take(len(message.get("body", b"")))
            await send(message)

        await self._app(scope, slow_receive, slow_send)


class RequestBudget:
    """Counts requests per bucket and caller in fixed windows."""

    def __init__(self, requests: int, *, window_seconds: int) -> None:
        self._requests = requests
        self._window_seconds = window_seconds
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str, int], int] = {}

    def spend(self, bucket: str, caller: str) -> None:
        """Counts one request; refuses it with 429, as the Hub does, when the window's budget is used up."""
        window, elapsed = divmod(time.time(), self._window_seconds)
        key = (bucket, caller, int(window))
        with self._lock:
            self._counts = {each: count for each, count in self._counts.items() if each[2] == int(window)}
            self._counts[key] = self._counts.get(key, 0) + 1
            spent = self._counts[key]
        if spent > self._requests:
            raise self._refusal(bucket, wait_seconds=math.ceil(self._window_seconds - elapsed))

    def _refusal(self, bucket: str, *, wait_seconds: int) -> Refusal:
        headers = {
            "RateLimit": f'"{bucket}";r=0;t={wait_seconds}',
            "RateLimit-Policy": f'"fixed window";"{bucket}";q={self._requests};w={self._window_seconds}',
        }
        return Refusal(429, "We had to rate limit you", headers=headers)
