"""Reads what a repo says about its descent from the Hub, with as few questions as possible.

The first question goes to the resolver, which allows far more of them than the API does
(https://huggingface.co/docs/hub/rate-limits): its answer holds the card, the commit and, by redirect, the name that the
repo has today. Only the metadata of a gated repo that may not be read is asked from the API.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from hubmerge.errors import TransferError
from hubmerge.lineage.declared import ADAPTER_FILE, RepoTexts, card_texts, wanted_files
from hubmerge.lineage.graph import State
from hubmerge.lineage.names import NamedModel
from hubmerge.lineage.published import CONFIG_FILE
from hubmerge.version import __version__
from hubmerge.weights.hub_client import HASTY, RetryPolicy, retried
from hubmerge.weights.hub_errors import HUB_FAILURES, explain
from hubmerge.weights.hub_files import MAX_REDIRECTS, REDIRECTS, Location

CARD_FILE = "README.md"
FILE_LIMIT_BYTES = 2_000_000
"""What is read of one file; the rest of a longer card goes unread."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_RESOLVED = re.compile(r"/((?:[\w.-]+/)?[\w.-]+)/resolve/", re.ASCII)
_GONE = (RepositoryNotFoundError, RevisionNotFoundError, DisabledRepoError, HFValidationError)


@dataclass(frozen=True)
class Found:
    """What was found under a model's name.

    Attributes:
        texts: None where nothing may be read.
        reason: Why not, as a sentence.
    """

    state: State
    texts: RepoTexts | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Answer:
    """One file as the resolver answers; `content` is None where the commit has no such file."""

    repo_id: str
    sha: str | None
    content: bytes | None


class HubReader:
    """Reads repos by name; safe to call from several threads.

    What was read at a commit is kept under the Hub cache's folder, by name and commit, and never asked again.
    """

    def __init__(
        self,
        *,
        token: str | bool | None = None,
        retry: RetryPolicy = HASTY,
        sleep: Callable[[float], Any] = time.sleep,
    ) -> None:
        self._token = token
        self._retry = retry
        self._sleep = sleep
        self._headers = build_hf_headers(token=token, library_name="hubmerge", library_version=__version__)
        self._folder = Path(constants.HF_HOME) / "hubmerge" / "lineage"

    def find(self, model: NamedModel) -> Found:
        """Returns what a repo says, or why it cannot be asked.

        Raises:
            SourceError: The token is not accepted.
            TransferError: Offline mode is on.
        """
        if model.repo_id is None:
            return Found(State.LOCAL)
        try:
            return Found(State.READ, self._texts(model.repo_id, model.revision))
        except GatedRepoError as error:
            return self._metadata(model.repo_id, model.revision, error)
        except _GONE as error:
            return Found(State.MISSING, reason=str(self._explained(error, model)))
        except HUB_FAILURES as error:
            explained = self._explained(error, model)
            if constants.HF_HUB_OFFLINE or _is_bad_token(error):
                raise explained from error
            return Found(State.UNREACHABLE, reason=str(explained))

    def _explained(self, error: Exception, model: NamedModel) -> Exception:
        return explain(error, model.repo_id or model.text, model.revision, token=self._token)

    def _texts(self, repo_id: str, revision: str | None) -> RepoTexts:
        if revision and _COMMIT.fullmatch(revision) and (kept := self._kept(repo_id, revision)):
            return kept
        answer = self._ask(repo_id, revision or "main", CARD_FILE)
        if answer.sha and (kept := self._kept(answer.repo_id, answer.sha)):
            return kept
        card = card_texts(answer.repo_id, answer.sha, answer.content)
        found = {name: self._text(answer, name) for name in wanted_files(card)}
        texts = replace(card, recipe=found.get(CONFIG_FILE), adapter=found.get(ADAPTER_FILE))
        self._keep(texts, answer.content)
        return texts

    def _text(self, card: _Answer, name: str) -> str | None:
        content = self._ask(card.repo_id, card.sha or "main", name).content
        return None if content is None else content.decode(errors="replace")

    def _ask(self, repo_id: str, revision: str, path: str) -> _Answer:
        return retried(lambda: self._ask_once(repo_id, revision, path), policy=self._retry, sleep=self._sleep)

    def _ask_once(self, repo_id: str, revision: str, path: str) -> _Answer:
        location = Location(hf_hub_url(repo_id, path, revision=revision), is_hub=True)
        sha: str | None = None
        for _ in range(MAX_REDIRECTS):
            with get_session().stream(
                "GET",
                location.url,
                headers=self._headers if location.is_hub else {},
                timeout=self._retry.timeout_seconds,
                follow_redirects=False,
            ) as response:
                sha = response.headers.get("x-repo-commit", sha)
                repo_id = _repo_of(location) or repo_id
                if response.status_code not in REDIRECTS:
                    return _Answer(repo_id, sha, _content(response))
                location = location.follow(response.headers.get("location", ""))
        raise TransferError(f"{repo_id}/{path} is redirected more than {MAX_REDIRECTS} times")

    def _metadata(self, repo_id: str, revision: str | None, refusal: Exception) -> Found:
        """Returns what the Hub tells everybody about a gated repo."""
        reason = str(explain(refusal, repo_id, revision, token=self._token))
        api = HfApi(token=self._token, library_name="hubmerge", library_version=__version__)
        try:
            info = retried(
                lambda: api.model_info(repo_id, revision=revision, timeout=self._retry.timeout_seconds),
                policy=self._retry,
                sleep=self._sleep,
            )
        except HUB_FAILURES:
            return Found(State.GATED, reason=reason)
        metadata = dict(vars(info.card_data)) if info.card_data else {}
        texts = RepoTexts(repo_id=info.id, sha=info.sha, metadata=metadata, tags=tuple(info.tags or ()))
        return Found(State.GATED, texts, reason)

    def _kept(self, repo_id: str, sha: str) -> RepoTexts | None:
        try:
            kept = json.loads(self._file(repo_id, sha).read_text())
            card = card_texts(repo_id, sha, kept["card"].encode())
            return replace(card, recipe=kept["recipe"], adapter=kept["adapter"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _keep(self, texts: RepoTexts, readme: bytes | None) -> None:
        if texts.sha is None:
            return
        card = (readme or b"").decode(errors="replace")
        content = json.dumps({"card": card, "recipe": texts.recipe, "adapter": texts.adapter})
        file = self._file(texts.repo_id, texts.sha)
        with suppress(OSError):  # a read-only home costs questions, not the answer
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{time.monotonic_ns()}")
            part.write_text(content)
            part.replace(file)

    def _file(self, repo_id: str, sha: str) -> Path:
        return self._folder / f"{repo_id.replace('/', '--')}@{sha}.json"


def _content(response: Any) -> bytes | None:
    """Returns the body of an answer, up to the limit; None where the Hub says that there is no such file."""
    if response.status_code >= 400:
        response.read()
    try:
        hf_raise_for_status(response)
    except EntryNotFoundError:
        return None
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) >= FILE_LIMIT_BYTES:
            break
    return bytes(content[:FILE_LIMIT_BYTES])


def _repo_of(location: Location) -> str | None:
    path = urlsplit(location.url).path.removeprefix(urlsplit(constants.ENDPOINT).path)
    match = _RESOLVED.match(path) if location.is_hub else None
    return match[1] if match else None


def _is_bad_token(error: Exception) -> bool:
    return isinstance(error, HfHubHTTPError) and error.response.status_code == 401
