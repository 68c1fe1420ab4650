"""This Hub's own controls, which the real one does not have: faults and the request log, over HTTP.

They are open to whoever reaches the port, like the rest of a Hub that is meant for one machine.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from functools import partial

from starlette.responses import JSONResponse, Response

from hubmerge.localhub.call import Call
from hubmerge.localhub.faults import Faults
from hubmerge.localhub.refusals import bad_request
from hubmerge.localhub.request_log import RequestLog
from hubmerge.localhub.router import Endpoint


def endpoints(faults: Faults, log: RequestLog) -> tuple[Endpoint, ...]:
    """Returns the endpoints over these two."""
    return (
        Endpoint("POST", "/_localhub/faults", partial(_add_fault, faults)),
        Endpoint("GET", "/_localhub/faults", partial(_list_faults, faults)),
        Endpoint("DELETE", "/_localhub/faults", partial(_clear_faults, faults)),
        Endpoint("GET", "/_localhub/requests", partial(_list_requests, log)),
        Endpoint("DELETE", "/_localhub/requests", partial(_clear_requests, log)),
    )


def _add_fault(faults: Faults, call: Call) -> Response:
    body = call.json()
    match = body.pop("match", None)
    if not isinstance(match, str):
        raise bad_request("A fault needs `match`, a regular expression")
    try:
        fault = faults.add(match, **body)
    except re.error as error:
        raise bad_request(f"`match` is not a regular expression: {error}") from None
    return JSONResponse(asdict(fault), 201)


def _list_faults(faults: Faults, call: Call) -> Response:
    return JSONResponse(faults.to_json())


def _clear_faults(faults: Faults, call: Call) -> Response:
    faults.clear()
    return JSONResponse({})


def _list_requests(log: RequestLog, call: Call) -> Response:
    return JSONResponse([asdict(record) for record in log])


def _clear_requests(log: RequestLog, call: Call) -> Response:
    log.clear()
    return JSONResponse({})
