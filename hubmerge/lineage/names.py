"""How cards and recipes name models: Hub ids, links, cache paths, and folders of machines that nobody else has."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hubmerge.card.front_matter import printable
from hubmerge.weights.reference import is_hub_id

_HUB_ADDRESS = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<id>[\w.-]+/[\w.-]+)"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[\w.-]+))?(?:[/?#].*)?",
    re.ASCII,
)
_CACHED = re.compile(
    r"(?:^|[/\\])models--(?P<id>[\w.-]+)(?:[/\\]snapshots[/\\](?P<revision>[0-9a-f]{40}))?(?=[/\\]|$)", re.ASCII
)
_OTHER_KINDS = ("datasets/", "spaces/", "collections/", "papers/", "blog/", "docs/", "models/")

LONGEST_TITLE = 255
"""Characters; no file system has longer names of folders."""


@dataclass(frozen=True)
class NamedModel:
    """A model as somebody names it.

    Attributes:
        text: The name as it is written.
        repo_id: None where no repo of the Hub can be meant.
        revision: None where none is named.
    """

    text: str
    repo_id: str | None
    revision: str | None = None

    @property
    def title(self) -> str:
        """The repo id, or the last part of a path: the rest of it is its owner's business."""
        return self.repo_id or re.split(r"[/\\]", self.text.rstrip("/\\"))[-1][:LONGEST_TITLE] or "/"


def named_models(text: str) -> tuple[NamedModel, ...]:
    """Returns the models that a reference names: one, or with `model+adapter` two.

    Characters that steer terminals are left out.
    """
    parts = (part.strip() for part in printable(text).strip().split("+"))
    return tuple(_named(part) for part in parts if part)


def _named(text: str) -> NamedModel:
    match = _HUB_ADDRESS.fullmatch(text)
    if match is not None and not match["id"].startswith(_OTHER_KINDS):
        return NamedModel(text, match["id"], match["revision"])
    match = _CACHED.search(text)
    if match is not None and is_hub_id(cached := match["id"].replace("--", "/", 1)):
        return NamedModel(text, cached, match["revision"])
    name, _, revision = text.partition("@")
    return NamedModel(text, name, revision or None) if is_hub_id(name) else NamedModel(text, None)
