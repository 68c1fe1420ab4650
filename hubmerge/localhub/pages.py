"""Long lists in pages, linked by a `Link: <...>; rel="next"` header as on GitHub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from hubmerge.localhub.call import Call
from hubmerge.localhub.refusals import bad_request


def page_of(call: Call, items: Sequence[Any], *, size: int) -> tuple[Sequence[Any], dict[str, str]]:
    """Returns the page that the query's `cursor` asks for, and the headers that lead to the next one."""
    query = call.request.query_params
    cursor = query.get("cursor", "0")
    if not cursor.isdecimal():
        raise bad_request("Invalid cursor")
    start = int(cursor)
    if start + size >= len(items):
        return items[start:], {}
    kept = [each for each in query.multi_items() if each[0] != "cursor"]
    path = call.request.scope["raw_path"].decode("latin-1")
    address = f"{call.origin}{path}?{urlencode([*kept, ('cursor', str(start + size))])}"
    return items[start : start + size], {"Link": f'<{address}>; rel="next"'}
