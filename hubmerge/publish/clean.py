"""Abandoned stagings of a repo or a folder, found and removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from hubmerge.errors import PublishError
from hubmerge.publish.abandoned import (
    Staging,
    remove_from_folder,
    remove_from_repo,
    staged_in_drafts,
    staged_in_folder,
    staged_in_repo,
)
from hubmerge.publish.hub_repo import hub_api
from hubmerge.publish.refusals import FAILURES, explain
from hubmerge.weights.hub_client import HASTY, check_token, retried

Result = TypeVar("Result")


class Place:
    """A repo, or a folder of this machine, that merges may have been left in.

    Args:
        name: A folder that exists, else OWNER/NAME.
        token: For a repo; None for the stored one.
    """

    def __init__(self, name: str, *, token: str | None = None) -> None:
        self._name = name
        self._token = token
        self._is_folder = Path(name).is_dir()
        if not self._is_folder and name.count("/") != 1:
            raise PublishError(f"there is no folder {name}", hint="A repo is named OWNER/NAME.")
        check_token(token, PublishError)

    def abandoned(self) -> list[Staging]:
        """Returns what is staged there; on the Hub a merge may still be running, on this machine it is not."""
        if self._is_folder:
            return self._on_disk(lambda: staged_in_folder(Path(self._name)))
        api = hub_api(self._token)
        with self._explained("read from"):
            branches = retried(lambda: staged_in_repo(api, self._name), policy=HASTY)
            return branches + retried(lambda: staged_in_drafts(api, self._name), policy=HASTY)

    def remove(self, staging: Staging) -> None:
        """Removes one of them."""
        if self._is_folder:
            self._on_disk(partial(remove_from_folder, staging))
            return
        with self._explained(f"remove {staging.name} from"):
            retried(lambda: remove_from_repo(hub_api(self._token), self._name, staging), policy=HASTY)

    def _on_disk(self, do: Callable[[], Result]) -> Result:
        try:
            return do()
        except OSError as error:
            raise PublishError(f"{error.filename or self._name}: {error.strerror}") from error

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            raise explain(error, self._name, action, token=self._token) from error
