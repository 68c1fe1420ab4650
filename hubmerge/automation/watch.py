"""A merge that the Hub itself keeps up to date: a webhook on its parents, or a schedule, that starts a job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import HfApi

from hubmerge.automation.hub_jobs import DEFAULT_FLAVOR, PACKAGE, TIMEOUT, check_webhooks, job_secrets, jobs_api
from hubmerge.errors import AutomationError
from hubmerge.existing.found import open_merged
from hubmerge.republish.status import known

SCHEDULE = re.compile(r"@(hourly|daily|weekly|monthly|yearly|annually)|\S+( \S+){4}")
"""A name, or five fields of cron: https://huggingface.co/docs/huggingface_hub/guides/jobs#scheduled-jobs."""


@dataclass(frozen=True)
class Watch:
    """What starts `hubmerge republish --if-changed` for a merge.

    Attributes:
        kind: `webhook` or `schedule`.
        id: The Hub's name for it.
        parents: The repos whose commits start the job; none for a schedule.
        schedule: Such as `@daily`; None for a webhook.
    """

    kind: str
    id: str
    parents: tuple[str, ...] = ()
    schedule: str | None = None

    @property
    def occasion(self) -> str:
        """When the job starts, in words."""
        return self.schedule or f"a commit to {', '.join(self.parents)}"


def watch_parents(repo_id: str, *, flavor: str | None = None, source_token: str | None = None) -> Watch:
    """Has the Hub republish a merge whenever a repo that it was made from gets a commit; replaces what watched it.

    A webhook starts copies of a job that has run, so one runs now: it finds the merge up to date, or updates it.

    Raises:
        SourceError: There is no such merge, or none that says what it was made from.
        AutomationError: Nothing can be watched, huggingface_hub is too old, or the Hub refuses.
        TransferError: The Hub does not answer.
    """
    check_webhooks()
    parents = _parents(repo_id)
    secrets = job_secrets({"HUBMERGE_SOURCE_TOKEN": source_token})
    with jobs_api() as api:
        old = list(_watches(api, repo_id))
        words = _job_words(repo_id, flavor, secrets)
        job = api.run_uv_job("hubmerge", **words)
        hook = api.create_webhook(
            job_id=job.id,
            watched=[{"type": "model", "name": parent} for parent in parents],
            domains=["repo"],
            secrets=dict(secrets),
        )
        _remove(api, old)
    return Watch("webhook", hook.id, parents)


def republish_on_schedule(
    repo_id: str, schedule: str, *, flavor: str | None = None, source_token: str | None = None
) -> Watch:
    """Has the Hub look at the parents of a merge at set times, and republish it; replaces what watched it.

    Args:
        repo_id: The merge.
        schedule: `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`, or five fields of cron.
        flavor: The job's hardware; None is `DEFAULT_FLAVOR`.
        source_token: For parents that are gated or private, if the stored token may not read them.

    Raises:
        SourceError: There is no such merge, or none that says what it was made from.
        AutomationError: `schedule` is none, or the Hub refuses.
        TransferError: It does not answer.
    """
    if not SCHEDULE.fullmatch(schedule):
        raise AutomationError(f"{schedule!r} is no schedule", hint="Write @daily, or five fields of cron: '0 4 * * 1'.")
    _parents(repo_id)
    secrets = job_secrets({"HUBMERGE_SOURCE_TOKEN": source_token})
    with jobs_api() as api:
        old = list(_watches(api, repo_id))
        words = _job_words(repo_id, flavor, secrets)
        scheduled = api.create_scheduled_uv_job("hubmerge", schedule=schedule, **words)
        _remove(api, old)
    return Watch("schedule", scheduled.id, schedule=schedule)


def list_watches(repo_id: str) -> tuple[Watch, ...]:
    """Returns what watches a merge, of the account whose token is stored.

    Raises:
        AutomationError: The Hub refuses.
        TransferError: It does not answer.
    """
    with jobs_api() as api:
        return tuple(_watches(api, repo_id))


def remove_watches(repo_id: str) -> tuple[Watch, ...]:
    """Removes what watches a merge, and returns it.

    Raises:
        AutomationError: The Hub refuses.
        TransferError: It does not answer.
    """
    with jobs_api() as api:
        watches = tuple(_watches(api, repo_id))
        _remove(api, watches)
    return watches


def _parents(repo_id: str) -> tuple[str, ...]:
    with open_merged(repo_id) as merge:
        lock, _ = known(merge)
        parents = sorted({parent.repo_id for parent in lock.parents if parent.repo_id} - {repo_id})
    if not parents:
        raise AutomationError(f"{repo_id} was made from folders alone; there is nothing to watch")
    return tuple(parents)


def _job_words(repo_id: str, flavor: str | None, secrets: dict[str, str]) -> dict[str, Any]:
    return {
        "script_args": _command(repo_id),
        "dependencies": [PACKAGE],
        "secrets": dict(secrets),
        "flavor": flavor or DEFAULT_FLAVOR,
        "timeout": TIMEOUT,
    }


def _command(repo_id: str) -> list[str]:
    return ["republish", repo_id, "--if-changed"]


def _watches(api: HfApi, repo_id: str) -> Iterator[Watch]:
    for hook in api.list_webhooks():
        if hook.job is not None and _republishes(hook.job.command, repo_id):
            yield Watch("webhook", hook.id, tuple(item.name for item in hook.watched))
    for scheduled in api.list_scheduled_jobs():
        if _republishes(scheduled.job_spec.command, repo_id):
            yield Watch("schedule", scheduled.id, schedule=scheduled.schedule)


def _republishes(command: Sequence[str] | None, repo_id: str) -> bool:
    return list(command or ())[-4:] == ["hubmerge", *_command(repo_id)]


def _remove(api: HfApi, watches: Sequence[Watch]) -> None:
    for watch in watches:
        if watch.kind == "webhook":
            api.delete_webhook(watch.id)
        else:
            api.delete_scheduled_job(scheduled_job_id=watch.id)
