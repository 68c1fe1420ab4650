"""Merges that were begun and not finished: what is staged for them in a repo or a folder, and how it is removed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.hf_api import RepoFile

from hubmerge.publish.folder import STAGING_PREFIX, read_note
from hubmerge.publish.plan_note import LARGEST_NOTE_BYTES, NOTE_FILE, PlanNote, parse_note

BRANCH_PREFIX = "hubmerge/"
SHARD_SUFFIX = ".safetensors"
UNFINISHED = ("draft", "open")


@dataclass(frozen=True)
class Staging:
    """What is staged for one merge.

    Attributes:
        name: The branch, the ref of the draft pull request, or the folder.
        shards: Finished output files.
        changed: When something was last added.
        note: What it is for; None if that is not told.
    """

    name: str
    shards: int
    size_bytes: int
    changed: datetime
    note: PlanNote | None


def staged_in_repo(api: HfApi, repo_id: str, *, without: str | None = None) -> list[Staging]:
    """Returns the staging branches of a repo, all but one; raises what huggingface_hub does."""
    branches = [branch.name for branch in api.list_repo_refs(repo_id).branches]
    return [
        _staged_at(api, repo_id, branch, f".{branch}/")
        for branch in branches
        if branch.startswith(BRANCH_PREFIX) and branch != without
    ]


def staged_in_drafts(api: HfApi, repo_id: str) -> list[Staging]:
    """Returns the draft pull requests of the token's own account that a merge is staged in."""
    account = str(api.whoami()["name"])
    pulls = api.get_repo_discussions(repo_id, author=account, discussion_type="pull_request")
    return [
        _staged_at(api, repo_id, str(pull.git_reference), f".{BRANCH_PREFIX}")
        for pull in pulls
        if pull.status == "draft" and f"({BRANCH_PREFIX}" in pull.title
    ]


def staged_in_folder(folder: Path) -> list[Staging]:
    """Returns the staging folders in a folder that no running merge holds."""
    return [_staged_in(path) for path in sorted(folder.glob(f"{STAGING_PREFIX}*")) if _is_abandoned(path)]


def remove_from_repo(api: HfApi, repo_id: str, staging: Staging) -> None:
    """Deletes a staging branch, or closes a draft."""
    if staging.name.startswith(BRANCH_PREFIX):
        api.delete_branch(repo_id, branch=staging.name)
    else:
        number = int(staging.name.rsplit("/", 1)[1])
        api.change_discussion_status(repo_id, discussion_num=number, new_status="closed")


def remove_from_folder(staging: Staging) -> None:
    """Deletes a staging folder."""
    shutil.rmtree(staging.name)


def told(staging: Staging, now: PlanNote | None, *, where: str) -> str:
    """Returns a sentence about shards of another plan that were found."""
    note = staging.note
    models = f" ({note.models})" if note is not None else ""
    differences = [] if note is None or now is None else note.differences(now)
    changed = "; ".join(differences)
    return (
        f"! {staging.name} holds {staging.shards} shards of another plan{models}, which are not used"
        + (f". {changed}" if changed else "")
        + f". `hubmerge clean {where}` removes it."
    )


def _staged_at(api: HfApi, repo_id: str, revision: str, folder: str) -> Staging:
    entries = api.list_repo_tree(repo_id, recursive=True, revision=revision)
    files = [entry for entry in entries if isinstance(entry, RepoFile) and entry.path.startswith(folder)]
    shards = [file for file in files if file.path.endswith(SHARD_SUFFIX)]
    latest = api.list_repo_commits(repo_id, revision=revision)[0]
    return Staging(
        revision,
        len(shards),
        sum(file.size for file in shards),
        latest.created_at,
        _note_at(api, repo_id, revision, files),
    )


def _note_at(api: HfApi, repo_id: str, revision: str, files: Sequence[RepoFile]) -> PlanNote | None:
    for file in files:
        if file.path.rpartition("/")[2] == NOTE_FILE and file.size <= LARGEST_NOTE_BYTES:
            try:
                return parse_note(Path(api.hf_hub_download(repo_id, file.path, revision=revision)).read_bytes())
            except EntryNotFoundError:
                return None
    return None


def _staged_in(path: Path) -> Staging:
    sizes = [file.stat().st_size for file in _shards_in(path)]
    changed = max([path.stat().st_mtime, *(file.stat().st_mtime for file in path.iterdir())])
    return Staging(str(path), len(sizes), sum(sizes), datetime.fromtimestamp(changed, UTC), read_note(path))


def _shards_in(path: Path) -> Iterator[Path]:
    return (file for file in path.glob(f"*{SHARD_SUFFIX}") if not file.is_symlink())


def _is_abandoned(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    finally:
        os.close(descriptor)
    return True
