"""Access tokens for the Xet store: they carry their own proof, an HMAC, so none is kept."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass

from hubmerge.localhub.refusals import Refusal, forbidden


@dataclass(frozen=True)
class XetTokens:
    """Issues and checks tokens with one secret; times are Unix seconds."""

    secret: bytes

    def issue(self, *, scope: str, write: bool, now: float, lifetime_seconds: int) -> tuple[str, int]:
        """An access token and when it expires."""
        expires = int(now) + lifetime_seconds
        claims = json.dumps({"scope": scope, "write": write, "expires": expires})
        payload = base64.urlsafe_b64encode(claims.encode()).decode()
        return f"{payload}.{self._signature(payload)}", expires

    def check(self, authorization: str, *, write: bool, now: float) -> None:
        """Let a request with this Authorization header pass.

        Raises:
            Refusal: 401 for a token that is missing, not ours or expired; 403 for a read token where one may write.
        """
        payload, _, signature = authorization.removeprefix("Bearer ").partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(payload).encode()):
            raise Refusal(401, "the Xet access token is missing or was not issued here")
        claims = json.loads(base64.urlsafe_b64decode(payload))
        if claims["expires"] <= now:
            raise Refusal(401, "the Xet access token has expired")
        if write and not claims["write"]:
            raise forbidden("the Xet access token may only read")

    def _signature(self, payload: str) -> str:
        return hmac.new(self.secret, f"xet-token\n{payload}".encode(), hashlib.sha256).hexdigest()
