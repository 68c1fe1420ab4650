"""Webhooks, jobs and scheduled jobs: a record of what a real Hub would run. Nothing is run here; tests may do so.

A commit to a watched repo adds the job that its webhook names, with the variables that the job would be given. The
values of secrets are not kept, only their names.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hubmerge.localhub.json_file import read_json, write_json
from hubmerge.localhub.records import Repo, timestamp

Record = dict[str, Any]


class Automation:
    """The webhooks, jobs and schedules of all users, in one file; lists are oldest first."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def jobs(self, namespace: str) -> list[Record]:
        """Returns the jobs of a user or organisation."""
        return [job for job in self._load()["jobs"] if job["owner"]["name"] == namespace]

    def add_job(self, namespace: str, spec: Mapping[str, Any]) -> Record:
        """Notes a job that would start now."""
        job = _job(namespace, spec, initiator={"type": "user", "id": namespace, "name": namespace})
        self._change(lambda data: data["jobs"].append(job))
        return job

    def cancel_job(self, namespace: str, job_id: str) -> bool:
        """Marks a job as cancelled; False where there is none."""
        return self._set("jobs", namespace, job_id, {"status": {"stage": "CANCELED", "message": None}})

    def finish_job(self, namespace: str, job_id: str, *, stage: str, log: Sequence[str]) -> bool:
        """Notes how a job ended that somebody has run in the Hub's place; False where there is none."""
        return self._set("jobs", namespace, job_id, {"status": {"stage": stage, "message": None}, "log": list(log)})

    def schedules(self, namespace: str) -> list[Record]:
        """Returns the scheduled jobs of a user or organisation."""
        return [each for each in self._load()["schedules"] if each["owner"]["name"] == namespace]

    def add_schedule(self, namespace: str, body: Mapping[str, Any]) -> Record:
        """Notes a scheduled job."""
        schedule = {
            "id": _new_id(),
            "createdAt": timestamp(),
            "jobSpec": _without_secrets(body.get("jobSpec", {})),
            "schedule": body.get("schedule"),
            "suspend": bool(body.get("suspend")),
            "concurrency": bool(body.get("concurrency")),
            "status": {"lastJob": None, "nextJobRunAt": None},
            "owner": _owner(namespace),
        }
        self._change(lambda data: data["schedules"].append(schedule))
        return schedule

    def suspend_schedule(self, namespace: str, schedule_id: str, *, suspend: bool) -> bool:
        """Stops a scheduled job for a time, or lets it go on; False where there is none."""
        return self._set("schedules", namespace, schedule_id, {"suspend": suspend})

    def delete_schedule(self, namespace: str, schedule_id: str) -> bool:
        """Removes a scheduled job; False where there is none."""
        return self._remove("schedules", schedule_id, lambda each: each["owner"]["name"] == namespace)

    def webhooks(self, user: str) -> list[Record]:
        """Returns the webhooks of a user."""
        return [hook for hook in self._load()["webhooks"] if hook["user"] == user]

    def save_webhook(self, user: str, body: Mapping[str, Any], *, webhook_id: str | None = None) -> Record | None:
        """Notes a webhook, or changes one; None where the one to change is not there."""
        old = next((hook for hook in self.webhooks(user) if hook["id"] == webhook_id), None)
        if webhook_id is not None and old is None:
            return None
        hook = _webhook(user, body, old or {}, self._source_job(body.get("jobSourceId")))

        def change(data: Record) -> None:
            data["webhooks"] = [each for each in data["webhooks"] if each["id"] != hook["id"]] + [hook]

        self._change(change)
        return hook

    def delete_webhook(self, user: str, webhook_id: str) -> bool:
        """Removes a webhook; False where there is none."""
        return self._remove("webhooks", webhook_id, lambda each: each["user"] == user)

    def note_commit(self, repo: Repo, ref: str, *, old: str, new: str) -> None:
        """Adds the jobs that webhooks watching this repo would start for a commit."""
        payload = _payload(repo, ref, old=old, new=new)
        hooks = [hook for hook in self._load()["webhooks"] if hook["job"] and _watches(hook, repo)]
        jobs = [_triggered_job(hook, repo, payload) for hook in hooks]
        if jobs:
            self._change(lambda data: data["jobs"].extend(jobs))

    def _source_job(self, job_id: str | None) -> Record | None:
        return next((job for job in self._load()["jobs"] if job["id"] == job_id), None)

    def _set(self, kind: str, namespace: str, record_id: str, fields: Mapping[str, Any]) -> bool:
        found: list[Record] = []

        def change(data: Record) -> None:
            found.extend(each for each in data[kind] if each["id"] == record_id and each["owner"]["name"] == namespace)
            for each in found:
                each.update(fields)

        self._change(change)
        return bool(found)

    def _remove(self, kind: str, record_id: str, belongs: Callable[[Record], bool]) -> bool:
        before = len(self._load()[kind])

        def change(data: Record) -> None:
            data[kind] = [each for each in data[kind] if each["id"] != record_id or not belongs(each)]

        return len(self._change(change)[kind]) < before

    def _load(self) -> Record:
        data: Record = read_json(self._file, {"jobs": [], "schedules": [], "webhooks": []})
        return data

    def _change(self, change: Callable[[Record], None]) -> Record:
        with self._lock:
            data = self._load()
            change(data)
            write_json(self._file, data)
        return data


def _job(namespace: str, spec: Mapping[str, Any], *, initiator: Mapping[str, str]) -> Record:
    return {
        "id": _new_id(),
        "createdAt": timestamp(),
        "status": {"stage": "SCHEDULING", "message": "Recorded; the local Hub runs no jobs"},
        "owner": _owner(namespace),
        "initiator": initiator,
        **_without_secrets(spec),
    }


def _triggered_job(hook: Record, repo: Repo, payload: Mapping[str, Any]) -> Record:
    variables = {
        "WEBHOOK_PAYLOAD": json.dumps(payload),
        "WEBHOOK_REPO_ID": repo.id,
        "WEBHOOK_REPO_TYPE": repo.type,
    }
    spec = {**hook["job"], "environment": {**hook["job"].get("environment", {}), **variables}}
    return _job(hook["user"], spec, initiator={"type": "webhook", "id": hook["id"]})


def _payload(repo: Repo, ref: str, *, old: str, new: str) -> Record:
    """Returns what the Hub sends: https://huggingface.co/docs/hub/webhooks#webhook-payloads."""
    return {
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {"type": repo.type, "name": repo.id, "private": repo.private, "headSha": new},
        "updatedRefs": [{"ref": ref, "oldSha": old, "newSha": new}],
        "webhook": {"version": 3},
    }


def _watches(hook: Record, repo: Repo) -> bool:
    watched = [(each["type"], each["name"]) for each in hook["watched"]]
    names = {(repo.type, repo.id), ("user", repo.namespace), ("org", repo.namespace)}
    return not hook["disabled"] and "repo" in hook["domains"] and not names.isdisjoint(watched)


def _webhook(user: str, body: Mapping[str, Any], old: Mapping[str, Any], source: Record | None) -> Record:
    job = old.get("job")
    if source is not None:
        own = {"id", "createdAt", "status", "owner", "initiator", "log"}
        job = {name: value for name, value in source.items() if name not in own}
        job["secrets"] = {**job.get("secrets", {}), **dict.fromkeys(body.get("secrets", {}))}
    return {
        "id": old.get("id", _new_id()),
        "user": user,
        "url": body.get("url", old.get("url")),
        "job": job,
        "watched": body.get("watched", old.get("watched", [])),
        "domains": body.get("domains", old.get("domains", ["repo"])),
        "secret": body.get("secret", old.get("secret")),
        "disabled": bool(body.get("disabled", old.get("disabled", False))),
    }


def _without_secrets(spec: Mapping[str, Any]) -> Record:
    kept = dict(spec)
    if "secrets" in kept:
        kept["secrets"] = dict.fromkeys(kept["secrets"])
    return kept


def _owner(namespace: str) -> dict[str, str]:
    return {"id": namespace, "name": namespace, "type": "user"}


def _new_id() -> str:
    return secrets.token_hex(12)
