"""A merge as a job on the Hub: the same command, with its recipe inside."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from hubmerge.automation.hub_jobs import DEFAULT_FLAVOR, PACKAGE, TIMEOUT, job_secrets, jobs_api
from hubmerge.errors import AutomationError
from hubmerge.merge.recipe import Recipe, load_recipe
from hubmerge.weights.reference import ModelRef

RECIPE_VARIABLE = "HUBMERGE_RECIPE"
UNFINISHED = frozenset({"SCHEDULING", "RUNNING"})
POLL_SECONDS = 3.0

_UNPACK_AND_RUN = f'printf %s "${RECIPE_VARIABLE}" >recipe && exec hubmerge merge-and-push recipe "$@"'
"""The file has no suffix, because huggingface_hub looks for local files among words that end in .yml."""


@dataclass(frozen=True)
class JobEnd:
    """How a job ended."""

    id: str
    url: str
    stage: str

    @property
    def succeeded(self) -> bool:
        """Whether its command exited with 0."""
        return self.stage == "COMPLETED"


def merge_in_job(
    recipe: Path,
    repo_id: str,
    options: Sequence[str],
    *,
    flavor: str | None = None,
    secrets: Mapping[str, str | None],
    on_start: Callable[[str], None],
    on_line: Callable[[str], None],
) -> JobEnd:
    """Runs `hubmerge merge-and-push` as a job and returns its end, when that has come.

    Args:
        recipe: Sent as it is written; it must name models of the Hub only.
        repo_id: The target.
        options: The command's other words; no secret may be among them, since jobs show their command.
        flavor: The hardware; None is `DEFAULT_FLAVOR`.
        secrets: By the name of their variables, besides the stored token.
        on_start: Told the page of the job.
        on_line: Told each line of its log.

    Raises:
        RecipeError: It is no recipe.
        AutomationError: It names a folder, or the Hub refuses the job.
        TransferError: The Hub does not answer.
    """
    loaded = load_recipe(recipe, lenient=True)  # the job's own command is as strict as it was asked to be
    _refuse_folders(loaded)
    given = job_secrets(secrets)
    with jobs_api() as api:
        job = api.run_uv_job(
            "bash",
            script_args=["-c", _UNPACK_AND_RUN, "hubmerge", repo_id, *options],
            dependencies=[PACKAGE],
            env={RECIPE_VARIABLE: loaded.text},
            secrets=dict(given),
            flavor=flavor or DEFAULT_FLAVOR,
            timeout=TIMEOUT,
        )
        namespace = job.owner.name
        on_start(job.url)
        for line in api.fetch_job_logs(job_id=job.id, namespace=namespace, follow=True):
            on_line(line)
        return _end(api, job.id, namespace)


def _end(api: HfApi, job_id: str, namespace: str) -> JobEnd:
    """Waits for the end, which the log may come before."""
    while True:
        job = api.inspect_job(job_id=job_id, namespace=namespace)
        stage = str(getattr(job.status.stage, "value", job.status.stage))
        if stage not in UNFINISHED:
            return JobEnd(job.id, job.url, stage)
        time.sleep(POLL_SECONDS)


def _refuse_folders(recipe: Recipe) -> None:
    folders = sorted({str(ref) for ref in _models(recipe) if ref.is_local or (ref.adapter and ref.adapter.is_local)})
    if folders:
        raise AutomationError(
            f"a job cannot read folders of this machine: {', '.join(folders)}",
            hint="Push them to the Hub first, as private repos if need be.",
        )


def _models(recipe: Recipe) -> list[ModelRef]:
    return [source for inner in recipe.tree() for source in inner.sources if isinstance(source, ModelRef)]
