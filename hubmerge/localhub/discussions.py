"""Discussions and pull requests: their records and their events."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hubmerge.localhub.json_file import read_json, write_json
from hubmerge.localhub.records import Repo, timestamp
from hubmerge.localhub.refusals import Refusal
from hubmerge.localhub.repos import RepoStore

Status = Literal["draft", "open", "closed", "merged"]
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Discussion:
    """One thread; a pull request where `base_commit` is set.

    Attributes:
        base_commit: Head of main when the pull request was opened, the base of its merge.
        merge_commit: The commit that merged it.
        events: As the API gives them, oldest first.
    """

    num: int
    title: str
    author: str
    created_at: str
    status: Status
    base_commit: str | None = None
    merge_commit: str | None = None
    events: tuple[Event, ...] = ()

    @property
    def is_pull_request(self) -> bool:
        """Whether it proposes changes."""
        return self.base_commit is not None

    def with_event(self, event: Event, **changes: Any) -> Discussion:
        """Returns the discussion with one event more, and fields changed."""
        return replace(self, events=(*self.events, event), **changes)


class DiscussionStore:
    """The discussions of every repo, one file each in the repo's folder."""

    def __init__(self, repos: RepoStore) -> None:
        self._repos = repos

    def create(
        self, repo: Repo, *, title: str, description: str, author: str, status: Status, base_commit: str | None
    ) -> Discussion:
        """Stores and returns the next discussion of a repo."""
        num = 1 + max((each.num for each in self.all(repo)), default=0)
        opening = comment_event(author, description)
        return self.save(repo, Discussion(num, title, author, timestamp(), status, base_commit, None, (opening,)))

    def save(self, repo: Repo, discussion: Discussion) -> Discussion:
        """Writes a discussion and returns it."""
        write_json(self._file(repo, discussion.num), asdict(discussion))
        return discussion

    def get(self, repo: Repo, num: int) -> Discussion:
        """Returns a discussion; refuses a number that was never given."""
        data = read_json(self._file(repo, num))
        if data is None:
            raise Refusal(404, f"Discussion {num} not found")
        return _from_json(data)

    def all(self, repo: Repo) -> list[Discussion]:
        """Returns every discussion of a repo, newest first."""
        files = (self._repos.folder(repo) / "discussions").glob("*.json")
        return sorted((_from_json(read_json(file)) for file in files), key=lambda each: each.num, reverse=True)

    def _file(self, repo: Repo, num: int) -> Path:
        return self._repos.folder(repo) / "discussions" / f"{num}.json"


def comment_event(author: str, text: str) -> Event:
    """Returns the event of a comment."""
    now = timestamp()
    latest = {"raw": text, "html": "", "updatedAt": now, "author": {"name": author}}
    return _event("comment", author, {"edited": False, "hidden": False, "latest": latest, "history": []})


def edited_comment(event: Event, *, text: str, hidden: bool) -> Event:
    """Returns a comment event with another text, or hidden; the old text goes into its history."""
    old = event["data"]
    latest = {**old["latest"], "raw": text, "updatedAt": timestamp()}
    history = [*old["history"], old["latest"]]
    return {**event, "data": {"edited": not hidden, "hidden": hidden, "latest": latest, "history": history}}


def status_event(author: str, status: Status) -> Event:
    """Returns the event of a change of status."""
    return _event("status-change", author, {"status": status})


def title_event(author: str, old: str, new: str) -> Event:
    """Returns the event of a new title."""
    return _event("title-change", author, {"from": old, "to": new})


def commit_event(author: str, title: str, oid: str) -> Event:
    """Returns the event of a commit on the pull request."""
    return _event("commit", author, {"subject": title, "oid": oid})


def _event(kind: str, author: str, data: Mapping[str, Any]) -> Event:
    return {
        "id": secrets.token_hex(12),
        "type": kind,
        "createdAt": timestamp(),
        "author": {"name": author},
        "data": data,
    }


def _from_json(data: Mapping[str, Any]) -> Discussion:
    return Discussion(**{**data, "events": tuple(data["events"])})
