"""Addresses that carry their own permission: signed, and good for a while only."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from hubmerge.localhub.refusals import Refusal


@dataclass(frozen=True)
class UrlSigner:
    """Signs a method, a path and query parameters with the secret of one Hub."""

    secret: bytes
    lifetime_seconds: int

    def sign(self, method: str, path: str, params: Mapping[str, str]) -> str:
        """Returns the path with its query, expiry and signature included."""
        query = {**params, "expires": str(int(time.time()) + self.lifetime_seconds)}
        return f"{path}?{urlencode({**query, 'signature': self._signature(method, path, query)})}"

    def check(self, method: str, path: str, query: Mapping[str, str]) -> None:
        """Refuses with 403 an address that was altered, made up, or has expired."""
        signed = {name: value for name, value in query.items() if name != "signature"}
        expected = self._signature("GET" if method == "HEAD" else method, path, signed)
        if not hmac.compare_digest(expected.encode(), query.get("signature", "").encode()):
            raise Refusal(403, "The signature of this address is wrong")
        if int(signed["expires"]) < time.time():
            raise Refusal(403, "This address has expired")

    def _signature(self, method: str, path: str, query: Mapping[str, str]) -> str:
        text = "\n".join((method, path, urlencode(sorted(query.items()))))
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()
