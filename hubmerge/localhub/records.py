"""What a repo is made of: frozen records, written to disk as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Gating = Literal[False, "auto", "manual"]
Tree = Mapping[str, "FileEntry"]
"""Every file of one commit: path → entry."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a tree.

    Attributes:
        sha256: Of the content, which is its name in the blob store.
        size: Bytes of the content.
        oid: Git blob id: of the content, or of the LFS pointer of a large file.
        large: Whether git holds a pointer only.
        xet_hash: Set where the content came by Xet.
    """

    sha256: str
    size: int
    oid: str
    large: bool
    xet_hash: str | None = None


@dataclass(frozen=True)
class Commit:
    """One commit of a linear history; `date` is ISO 8601 in UTC."""

    oid: str
    tree: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str


@dataclass(frozen=True)
class Repo:
    """A repo's settings and refs.

    Attributes:
        kind: `models`, `datasets` or `spaces`.
        branches: Name → commit id.
        tags: Name → commit id.
        pulls: Number of the pull request → commit id of its head.
        accepted: Users let into a gated repo.
        pending: Users who asked and wait.
    """

    kind: str
    id: str
    created_at: str
    private: bool = False
    gated: Gating = False
    sdk: str | None = None
    branches: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    pulls: Mapping[str, str] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()

    @property
    def namespace(self) -> str | None:
        """The user or organisation that owns it; None for the few old repos without one."""
        return self.id.rpartition("/")[0] or None

    @property
    def type(self) -> str:
        """The kind in the singular, as bodies and messages have it: `model`, `dataset` or `space`."""
        return self.kind.removesuffix("s")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Repo:
        """Returns the record that `to_json` wrote."""
        return cls(**{**data, "accepted": tuple(data["accepted"]), "pending": tuple(data["pending"])})

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON types."""
        return asdict(self)


def timestamp(moment: float | None = None) -> str:
    """Returns a Unix time, by default now, the way the Hub writes it: 2026-01-31T12:00:00.000Z."""
    date = datetime.now(UTC) if moment is None else datetime.fromtimestamp(moment, UTC)
    return date.isoformat(timespec="milliseconds").replace("+00:00", "Z")
