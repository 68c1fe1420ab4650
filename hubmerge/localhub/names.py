"""Which repo ids, file paths and ref names are acceptable. Pure; nothing that fails here gets near the disk."""

from __future__ import annotations

import re

from hubmerge.localhub.refusals import bad_request

KINDS = ("models", "datasets", "spaces")

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def kind_of(repo_type: object) -> str:
    """Returns the plural used in paths for `model`, `dataset` or `space`; None means a model."""
    kind = f"{repo_type or 'model'}s"
    if kind not in KINDS:
        raise bad_request(f"Invalid repo type: {repo_type}")
    return kind


def web_prefix(kind: str) -> str:
    """Returns what stands before the repo id in web addresses: nothing for models."""
    return "" if kind == "models" else f"{kind}/"


def is_account_name(name: str) -> bool:
    """Returns whether a user or an organisation may be called so."""
    return bool(_NAME.fullmatch(name)) and ".." not in name and "--" not in name


def check_repo_id(repo_id: str) -> str:
    """Returns the id, `namespace/name` or a bare `name`, if it is well formed."""
    parts = repo_id.split("/")
    well_formed = len(parts) in (1, 2) and all(is_account_name(part) for part in parts)
    if not well_formed or repo_id.endswith(".git"):
        raise bad_request(f"Invalid repo id: {repo_id!r}")
    return repo_id


def check_file_path(path: str) -> str:
    """Returns the path of a file in a repo if it is relative and stays inside."""
    parts = path.split("/")
    inside = all(part not in ("", ".", "..", ".git") for part in parts)
    plain = "\\" not in path and not any(ord(letter) < 32 for letter in path)
    if not inside or not plain or len(path) > 1024:
        raise bad_request(f"Invalid path in repo: {path!r}")
    return path


def check_ref_name(name: str) -> str:
    """Returns the name of a new branch or tag if git would take it and it cannot be mistaken for a commit."""
    broken = ".." in name or "//" in name or name.endswith(("/", ".lock", "."))
    if broken or name.startswith("refs/") or _COMMIT.fullmatch(name) or not _REF.fullmatch(name):
        raise bad_request(f"Invalid reference name: {name!r}")
    return name


def check_sha256(text: object) -> str:
    """Returns the text if it is 64 lower-case hex digits."""
    if not isinstance(text, str) or not _SHA256.fullmatch(text):
        raise bad_request(f"Invalid sha256: {text!r}")
    return text


def check_size(value: object) -> int:
    """Returns the value if it is a number of bytes."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise bad_request(f"Invalid size: {value!r}")
    return value


def is_commit_id(text: str) -> bool:
    """Returns whether the text is a full commit id: 40 lower-case hex digits."""
    return bool(_COMMIT.fullmatch(text))
