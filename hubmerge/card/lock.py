"""hubmerge.lock.json: exactly which bytes of which parents a merge was made from, and what came out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, TypeVar

from hubmerge.errors import CardError

LOCK_FILE = "hubmerge.lock.json"
SCHEMA_VERSION = 1
LARGEST_LOCK_BYTES = 16 * 2**20
"""A merge of thirty parents with a thousand files each stays below it."""

_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class LockedFile:
    """One file of a parent.

    Attributes:
        sha256: Of its content, 64 hexadecimal digits; None if the Hub does not keep it as a large file.
        blob_id: Git's hash of it, 40 hexadecimal digits; None on disk.
    """

    path: str
    size_bytes: int
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class LockedParent:
    """One parent as it was read.

    Attributes:
        repo_id: None for a local folder.
        sha: Its commit, 40 hexadecimal digits; None for a local folder.
        revision: What the recipe asked for: a branch, a tag or a commit; None if nothing.
        files: Those that the merge depends on.
    """

    repo_id: str | None
    sha: str | None
    revision: str | None
    files: tuple[LockedFile, ...]


@dataclass(frozen=True, kw_only=True)
class LockedOutput:
    """One file of the merge; `sha256` is 64 hexadecimal digits."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class LockedAdapter:
    """An adapter that was trained on the merge and added to it before it was rounded.

    Attributes:
        path: Where its weights lie beside the lock file; None if they are not published.
        sha256: Of its weights.
        rounding: `nearest` or `stochastic`.
        fold_base: `original`, or `nf4` where it was added to what quantisation left of the weights.
    """

    path: str | None
    sha256: str
    rounding: str
    fold_base: str


@dataclass(frozen=True, kw_only=True)
class LockFacts:
    """Everything that a lock file says; equal facts give equal bytes."""

    hubmerge_version: str
    torch_version: str
    fingerprint: str
    seed: int | None
    parents: tuple[LockedParent, ...]
    outputs: tuple[LockedOutput, ...]
    adapters: tuple[LockedAdapter, ...] = ()


def render_lock(facts: LockFacts) -> str:
    """Returns the text of the lock file."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "hubmerge_version": facts.hubmerge_version,
        "torch_version": facts.torch_version,
        "fingerprint": facts.fingerprint,
        "seed": facts.seed,
        "parents": [_parent_entry(parent) for parent in facts.parents],
        "outputs": [{"path": out.path, "size": out.size_bytes, "sha256": out.sha256} for out in facts.outputs],
        **({"adapters": [asdict(adapter) for adapter in facts.adapters]} if facts.adapters else {}),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def parse_lock(text: str) -> LockFacts:
    """Returns the facts of a lock file that anybody may have written.

    Raises:
        CardError: It is not a lock file of this version; the message says where.
    """
    entry = _Entry(_load(text), LOCK_FILE)
    version = entry.integer("schema_version")
    if version != SCHEMA_VERSION:
        raise CardError(
            f"{LOCK_FILE}: its schema version is {version}, and this hubmerge reads {SCHEMA_VERSION}",
            hint="Use the hubmerge that wrote it, or a newer one.",
        )
    return LockFacts(
        hubmerge_version=entry.text("hubmerge_version"),
        torch_version=entry.text("torch_version"),
        fingerprint=entry.text("fingerprint"),
        seed=entry.optional("seed", entry.integer),
        parents=entry.items("parents", _parent),
        outputs=entry.items("outputs", _output),
        adapters=entry.optional("adapters", lambda key: entry.items(key, _adapter)) or (),
    )


def _parent_entry(parent: LockedParent) -> dict[str, object]:
    files = [
        {"path": file.path, "size": file.size_bytes, "sha256": file.sha256, "blob_id": file.blob_id}
        for file in parent.files
    ]
    return {"repo_id": parent.repo_id, "sha": parent.sha, "revision": parent.revision, "files": files}


def _parent(entry: _Entry) -> LockedParent:
    return LockedParent(
        repo_id=entry.optional("repo_id", entry.text),
        sha=entry.optional("sha", entry.sha1),
        revision=entry.optional("revision", entry.text),
        files=entry.items("files", _file),
    )


def _file(entry: _Entry) -> LockedFile:
    return LockedFile(
        path=entry.path("path"),
        size_bytes=entry.size("size"),
        sha256=entry.optional("sha256", entry.sha256),
        blob_id=entry.optional("blob_id", entry.sha1),
    )


def _adapter(entry: _Entry) -> LockedAdapter:
    return LockedAdapter(
        path=entry.optional("path", entry.path),
        sha256=entry.sha256("sha256"),
        rounding=entry.text("rounding"),
        fold_base=entry.text("fold_base"),
    )


def _output(entry: _Entry) -> LockedOutput:
    return LockedOutput(path=entry.path("path"), size_bytes=entry.size("size"), sha256=entry.sha256("sha256"))


def _load(text: str) -> Any:
    if len(text) > LARGEST_LOCK_BYTES:
        raise CardError(f"{LOCK_FILE}: it is larger than {LARGEST_LOCK_BYTES:,} bytes")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise CardError(f"{LOCK_FILE}: it is not JSON ({error})") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


class _Entry:
    """One object of the file, read key by key; errors say the path that leads to it."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise CardError(f"{where} must be an object")
        self._values = value
        self._where = where

    def text(self, key: str) -> str:
        return self._read(key, "a text", _text)

    def integer(self, key: str) -> int:
        return self._read(key, "a whole number", _integer)

    def size(self, key: str) -> int:
        return self._read(key, "a number of bytes", _size)

    def sha1(self, key: str) -> str:
        return self._read(key, "40 hexadecimal digits", lambda value: _matching(_SHA1, value))

    def sha256(self, key: str) -> str:
        return self._read(key, "64 hexadecimal digits", lambda value: _matching(_SHA256, value))

    def path(self, key: str) -> str:
        return self._read(key, "a path inside the repo", _inner_path)

    def optional(self, key: str, read: Callable[[str], Item]) -> Item | None:
        return None if self._values.get(key) is None else read(key)

    def items(self, key: str, read: Callable[[_Entry], Item]) -> tuple[Item, ...]:
        values = self._read(key, "a list", lambda value: value if isinstance(value, list) else None)
        return tuple(read(_Entry(value, f"{self._path(key)}[{index}]")) for index, value in enumerate(values))

    def _read(self, key: str, kind: str, accept: Callable[[object], Item | None]) -> Item:
        value = accept(self._values.get(key))
        if value is None:
            raise CardError(f"{self._path(key)} must be {kind}")
        return value

    def _path(self, key: str) -> str:
        return f"{LOCK_FILE}: {key}" if self._where == LOCK_FILE else f"{self._where}.{key}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _size(value: object) -> int | None:
    size = _integer(value)
    return size if size is not None and size >= 0 else None


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _inner_path(value: object) -> str | None:
    """Returns a relative path that stays below its root on any system, or None."""
    if not isinstance(value, str) or re.search(r"[\\:\x00-\x1f]", value):
        return None
    return value if all(part not in ("", ".", "..") for part in value.split("/")) else None
