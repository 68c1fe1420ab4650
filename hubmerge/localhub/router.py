"""Requests to handlers, by the path as it was sent.

Revisions and paths hold slashes: most calls send them as %2F, some as they are. So patterns are matched before anything
is unquoted, which is why this is not the framework's own router.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

from starlette.responses import Response

from hubmerge.localhub.call import Call
from hubmerge.localhub.refusals import Refusal

Handler = Callable[[Call], Response] | Callable[[Call], Awaitable[Response]]

_SLASH = "(?:/|%2[Ff])"
_FIELDS = {
    "kind": "models|datasets|spaces",
    "prefix": "datasets/|spaces/|",
    "repo": "[^/]+(?:/[^/]+)?",
    "rev": f"refs{_SLASH}(?:pr|convert|heads|tags){_SLASH}[^/]+|[^/]+",
    "path": ".+",
    "number": "[0-9]{1,9}",
}


@dataclass(frozen=True)
class Endpoint:
    """A method and a path pattern, and who answers them.

    Attributes:
        pattern: Fields stand in braces: kind, prefix, repo, rev, path and number have a form of their own, any
            other is one path segment.
        handler: A plain function runs in a thread, with the body received; a coroutine function receives it itself.
    """

    method: str
    pattern: str
    handler: Handler

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        parts = re.split(r"\{(\w+)\}", self.pattern)
        fields = [f"(?P<{name}>{_FIELDS.get(name, '[^/]+')})" for name in parts[1::2]]
        text = "".join(re.escape(fixed) + field for fixed, field in zip(parts[::2], [*fields, ""], strict=True))
        return re.compile(text)

    def match(self, path: str) -> dict[str, str] | None:
        """Returns the fields, unquoted, if the path is of this form."""
        found = self._regex.fullmatch(path)
        return None if found is None else {name: unquote(text) for name, text in found.groupdict().items()}


@dataclass(frozen=True)
class Match:
    """The endpoint for a request and the fields of its path."""

    endpoint: Endpoint
    params: Mapping[str, str]


def find_endpoint(endpoints: Sequence[Endpoint], method: str, path: str) -> Match:
    """Returns the first endpoint that fits, rather one that reads the repo as namespace/name; GET answers HEAD.

    Raises:
        Refusal: 405 where only the method is wrong, else 404.
    """
    found = [Match(each, params) for each in endpoints if (params := each.match(path)) is not None]
    wanted = "GET" if method == "HEAD" else method
    fitting = [match for match in found if match.endpoint.method == wanted]
    if fitting:
        return next((match for match in fitting if "/" in match.params.get("repo", "/")), fitting[0])
    if found:
        allowed = ", ".join(sorted({match.endpoint.method for match in found}))
        raise Refusal(405, f"{method} is not allowed here", headers={"Allow": allowed})
    raise Refusal(404, "Sorry, we can't find the page you are looking for.")
