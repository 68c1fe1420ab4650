"""Which checkpoint is meant: a Hub id or a local folder, its revision, and the adapter put on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubmerge.errors import SourceError

# huggingface_hub.utils.validate_repo_id; `--` and `..` are refused there too.
_HUB_NAME = r"(?!.*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?"
_HUB_ID = re.compile(rf"(?:{_HUB_NAME}/)?{_HUB_NAME}", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]*", re.ASCII)
_LOCAL = re.compile(r"/|~|\\|\.{1,2}(?:[/\\]|$)|[A-Za-z]:[/\\]")
_TRAILING = re.compile(r"[\s/\\]+\Z")
_CACHED_SNAPSHOT = re.compile(r"(?:^|.*[/\\])models--([\w.-]+)[/\\]snapshots[/\\]([0-9a-f]{40})", re.ASCII)


@dataclass(frozen=True)
class ModelRef:
    """A checkpoint by name; nothing says yet that it exists.

    `str(ref)` is the recipe language's short form, and `parse_reference` reads it back.

    Attributes:
        path: Hub id (`org/name`) or local folder.
        revision: Branch, tag or commit of a Hub repo; None is its default branch. A folder that states one is refused
            when it is opened.
        adapter: The LoRA adapter that is folded into the weights; it has no adapter of its own.
    """

    path: str
    revision: str | None = None
    adapter: ModelRef | None = None

    def __str__(self) -> str:
        own = self.path if self.revision is None else f"{self.path}@{self.revision}"
        return own if self.adapter is None else f"{own}+{self.adapter}"

    @property
    def without_adapter(self) -> ModelRef:
        """The model alone."""
        return self if self.adapter is None else ModelRef(self.path, self.revision)

    @property
    def is_local(self) -> bool:
        """Whether `path` is a folder: written like one, or one of that name exists and no revision is asked for."""
        return _looks_local(self.path) or (self.revision is None and _is_folder(self.path))

    @property
    def folder(self) -> Path:
        """The local folder, `~` expanded."""
        return Path(self.path).expanduser()


def parse_reference(source: str | Mapping[str, Any]) -> ModelRef:
    """Returns the checkpoint that a recipe or a command line names.

    Args:
        source: `path[@revision][+adapter[@revision]]`, `{path, revision}` or `{model, lora}` with either form in each.
            A path into the Hub cache (`models--org--name/snapshots/<sha>`) means `org/name@<sha>`. `@` and `+` belong
            to the name of a folder where a folder of that whole name exists.

    Raises:
        SourceError: It can be neither a folder nor a Hub id.
    """
    if isinstance(source, str):
        return _from_text(source.strip())
    if "model" in source:
        _refuse_others(source, "model", "lora")
        model = _without_adapter(source["model"])
        lora = source.get("lora")
        return model if lora is None else ModelRef(model.path, model.revision, _without_adapter(lora))
    return _without_adapter(source)


def _from_text(text: str) -> ModelRef:
    if _is_folder(text):
        return _checked(text, None)
    model, *adapters = text.split("+")
    if len(adapters) > 1:
        raise SourceError(f"`{text}` names {len(adapters)} adapters; a model takes one")
    base = _one(model)
    return base if not adapters else ModelRef(base.path, base.revision, _one(adapters[0]))


def _without_adapter(source: Any) -> ModelRef:
    """Reads one half of a mapping, where a `+` is never an adapter."""
    if isinstance(source, str):
        return _one(source)
    if not isinstance(source, Mapping):
        raise SourceError(f"a model is a name or a mapping, not `{source}`")
    _refuse_others(source, "path", "revision")
    path, revision = source.get("path"), source.get("revision")
    if not isinstance(path, str):
        raise SourceError("a model's mapping needs its `path`")
    return _checked(path.strip(), None if revision is None else str(revision))


def _one(text: str) -> ModelRef:
    text = text.strip()
    if _is_folder(text):
        return _checked(text, None)
    path, at, revision = text.rpartition("@")
    return _checked(path.strip(), revision.strip()) if at else _checked(text, None)


def _checked(path: str, revision: str | None) -> ModelRef:
    path = _TRAILING.sub("", path) or path[:1]
    if revision is None and (cached := _CACHED_SNAPSHOT.fullmatch(path)):
        path, revision = cached[1].replace("--", "/", 1), cached[2]
    if revision is not None and not is_revision(revision):
        raise SourceError(f"`{revision}` is not a revision (a branch, tag or commit) of `{path}`")
    if not (_looks_local(path) or is_hub_id(path) or _is_folder(path)):
        raise SourceError(f"`{path}` is neither a Hub id (`org/name`) nor a folder on this machine")
    return ModelRef(path, revision)


def is_hub_id(text: str) -> bool:
    """Returns whether a Hub repo could have that id."""
    return bool(_HUB_ID.fullmatch(text)) and not text.endswith(".git")


def is_revision(text: str) -> bool:
    """Returns whether a branch, tag or commit could have that name."""
    return bool(_REVISION.fullmatch(text))


def _looks_local(path: str) -> bool:
    return bool(_LOCAL.match(path))


def _is_folder(path: str) -> bool:
    try:
        return bool(path) and Path(path).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, an unknown home
        return False


def _refuse_others(source: Mapping[str, Any], *known: str) -> None:
    for key in source:
        if key not in known:
            raise SourceError(f"`{key}` is not a key of a model; it has {' and '.join(f'`{name}`' for name in known)}")
