"""Webhooks, jobs and scheduled jobs; they are recorded, not run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from hubmerge.localhub.automation import Record
from hubmerge.localhub.call import Call
from hubmerge.localhub.refusals import Refusal, bad_request, forbidden
from hubmerge.localhub.router import Endpoint
from hubmerge.localhub.state import State

UNFINISHED = frozenset({"SCHEDULING", "RUNNING"})
LOG_PAUSE_SECONDS = 0.1


def _list_jobs(call: Call) -> Response:
    query = call.request.query_params
    stages, labels = query.getlist("stage"), query.getlist("label")
    jobs = [job for job in call.state.automation.jobs(_namespace(call)) if _fits(job, stages, labels)]
    return JSONResponse(jobs)


def _fits(job: Record, stages: list[str], labels: list[str]) -> bool:
    own = {f"{name}={value}" for name, value in (job.get("labels") or {}).items()}
    return (not stages or job["status"]["stage"] in stages) and own.issuperset(labels)


def _create_job(call: Call) -> Response:
    return JSONResponse(call.state.automation.add_job(_namespace(call), call.json()))


def _inspect_job(call: Call) -> Response:
    return JSONResponse(_one(call.state.automation.jobs(_namespace(call)), call.params["id"]))


def _cancel_job(call: Call) -> Response:
    return _done(call.state.automation.cancel_job(_namespace(call), call.params["id"]))


def _job_log(call: Call) -> Response:
    return StreamingResponse(
        _log_events(call.state, _namespace(call), call.params["id"]), media_type="text/event-stream"
    )


def _log_events(state: State, namespace: str, job_id: str) -> Iterator[str]:
    while (job := _one(state.automation.jobs(namespace), job_id))["status"]["stage"] in UNFINISHED:
        yield ": keep-alive\n\n"
        time.sleep(LOG_PAUSE_SECONDS)
    for line in job.get("log", []):
        yield f"data: {json.dumps({'timestamp': job['createdAt'], 'data': line})}\n\n"


def _list_schedules(call: Call) -> Response:
    return JSONResponse(call.state.automation.schedules(_namespace(call)))


def _create_schedule(call: Call) -> Response:
    return JSONResponse(call.state.automation.add_schedule(_namespace(call), call.json()))


def _inspect_schedule(call: Call) -> Response:
    return JSONResponse(_one(call.state.automation.schedules(_namespace(call)), call.params["id"]))


def _suspend_schedule(call: Call) -> Response:
    return _done(call.state.automation.suspend_schedule(_namespace(call), call.params["id"], suspend=True))


def _resume_schedule(call: Call) -> Response:
    return _done(call.state.automation.suspend_schedule(_namespace(call), call.params["id"], suspend=False))


def _delete_schedule(call: Call) -> Response:
    return _done(call.state.automation.delete_schedule(_namespace(call), call.params["id"]))


def _list_webhooks(call: Call) -> Response:
    return JSONResponse([_shown(hook) for hook in call.state.automation.webhooks(call.user().user)])


def _inspect_webhook(call: Call) -> Response:
    return _webhook_answer(_one(call.state.automation.webhooks(call.user().user), call.params["id"]))


def _create_webhook(call: Call) -> Response:
    body = call.json()
    if not body.get("watched") or not (body.get("url") or body.get("jobSourceId")):
        raise bad_request("A webhook needs `watched`, and a `url` or a `jobSourceId`")
    hook = call.state.automation.save_webhook(call.writer().user, body)
    assert hook is not None, "a new webhook is always saved"
    return _webhook_answer(hook)


def _update_webhook(call: Call) -> Response:
    return _changed_webhook(call, call.json())


def _enable_webhook(call: Call) -> Response:
    return _changed_webhook(call, {"disabled": False})


def _disable_webhook(call: Call) -> Response:
    return _changed_webhook(call, {"disabled": True})


def _delete_webhook(call: Call) -> Response:
    return _done(call.state.automation.delete_webhook(call.writer().user, call.params["id"]))


def _changed_webhook(call: Call, body: dict[str, Any]) -> Response:
    hook = call.state.automation.save_webhook(call.writer().user, body, webhook_id=call.params["id"])
    if hook is None:
        raise _not_found()
    return _webhook_answer(hook)


def _webhook_answer(hook: Record) -> Response:
    return JSONResponse({"webhook": _shown(hook)})


def _shown(hook: Record) -> Record:
    return {name: value for name, value in hook.items() if name != "user"}


def _namespace(call: Call) -> str:
    namespace = call.params["namespace"]
    if not call.user().owns(namespace):
        raise forbidden(f"You don't have the rights to the jobs of {namespace}")
    return namespace


def _one(records: list[Record], record_id: str) -> Record:
    found = next((each for each in records if each["id"] == record_id), None)
    if found is None:
        raise _not_found()
    return found


def _done(found: bool) -> Response:
    if not found:
        raise _not_found()
    return JSONResponse({})


def _not_found() -> Refusal:
    return Refusal(404, "Not Found")


ENDPOINTS = (
    Endpoint("GET", "/api/jobs/{namespace}", _list_jobs),
    Endpoint("POST", "/api/jobs/{namespace}", _create_job),
    Endpoint("GET", "/api/jobs/{namespace}/{id}", _inspect_job),
    Endpoint("GET", "/api/jobs/{namespace}/{id}/logs", _job_log),
    Endpoint("POST", "/api/jobs/{namespace}/{id}/cancel", _cancel_job),
    Endpoint("GET", "/api/scheduled-jobs/{namespace}", _list_schedules),
    Endpoint("POST", "/api/scheduled-jobs/{namespace}", _create_schedule),
    Endpoint("GET", "/api/scheduled-jobs/{namespace}/{id}", _inspect_schedule),
    Endpoint("DELETE", "/api/scheduled-jobs/{namespace}/{id}", _delete_schedule),
    Endpoint("POST", "/api/scheduled-jobs/{namespace}/{id}/suspend", _suspend_schedule),
    Endpoint("POST", "/api/scheduled-jobs/{namespace}/{id}/resume", _resume_schedule),
    Endpoint("GET", "/api/settings/webhooks", _list_webhooks),
    Endpoint("POST", "/api/settings/webhooks", _create_webhook),
    Endpoint("GET", "/api/settings/webhooks/{id}", _inspect_webhook),
    Endpoint("POST", "/api/settings/webhooks/{id}", _update_webhook),
    Endpoint("POST", "/api/settings/webhooks/{id}/enable", _enable_webhook),
    Endpoint("POST", "/api/settings/webhooks/{id}/disable", _disable_webhook),
    Endpoint("DELETE", "/api/settings/webhooks/{id}", _delete_webhook),
)
