"""Whether the result can go where it is to go: asked before the training rather than after it."""

from __future__ import annotations

from pathlib import Path

from hubmerge.errors import PublishError, TrainError
from hubmerge.merge.recipe import Recipe
from hubmerge.publish.access import prepare_repo
from hubmerge.publish.folder import STAGING_PREFIX
from hubmerge.trainer.settings import DpoSettings
from hubmerge.weights.checkpoint import DEFAULT_BRANCH


def check_target(settings: DpoSettings) -> None:
    """Raises TrainError if there is not one target, or if the result makes no sense there; asks nobody."""
    result = settings.result
    if result.push_to is None and result.folder is None:
        raise TrainError("a tuning needs one target", hint="Name it: --push-to OWNER/NAME or --out DIR.")
    if result.push_to is not None and result.folder is not None:
        raise TrainError(
            f"a tuning has one target, and two are named: {result.push_to} and the folder {result.folder}",
            hint="Leave one of them out.",
        )
    if result.create_pr and result.revision not in (None, DEFAULT_BRANCH):
        raise TrainError("a pull request goes to main", hint=f"Leave out the branch {result.revision}.")
    is_local = isinstance(settings.model, Recipe) or settings.model.is_local
    if result.publish == "adapter" and result.push_to is not None and is_local:
        raise TrainError(
            "an adapter alone is of use only on a base that is on the Hub, and this one is not",
            hint="Publish the whole model, or leave the adapter in a folder: --out DIR.",
        )
    if not isinstance(settings.model, Recipe) and result.push_to == settings.model.path and not _is_aside(settings):
        raise TrainError(
            f"{result.push_to} is the model that is tuned, whose weights would be replaced",
            hint="Name another repo, or keep the model as it is: --revision BRANCH or --create-pr.",
        )


def prepare_target(settings: DpoSettings, *, token: str | None) -> None:
    """Creates the repo if need be.

    Raises:
        PublishError: The token may not write to it, or the folder holds something else.
    """
    result = settings.result
    if result.push_to is not None:
        prepare_repo(result.push_to, private=result.private or None, create_pr=result.create_pr, token=token)
    if result.folder is not None:
        _check_folder(Path(result.folder))


def _is_aside(settings: DpoSettings) -> bool:
    return settings.result.create_pr or settings.result.revision not in (None, DEFAULT_BRANCH)


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise PublishError(f"{folder} is a file", hint="Choose a new or an empty folder.")
    found = sorted(path.name for path in folder.glob("*"))
    # Beside what an earlier run staged may lie files of its own, which its publisher knows.
    if found and not any(name.startswith(STAGING_PREFIX) for name in found):
        raise PublishError(f"{folder} is not empty (it holds {found[0]})", hint="Choose a new or an empty folder.")
