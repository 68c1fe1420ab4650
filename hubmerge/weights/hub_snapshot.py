"""A repo of the Hub at one commit, which is pinned here and nowhere else."""

from __future__ import annotations

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from hubmerge.errors import SourceError
from hubmerge.version import __version__
from hubmerge.weights.files import FileEntry
from hubmerge.weights.hub_client import HASTY, check_token, no_hub_error, retried
from hubmerge.weights.hub_errors import HUB_FAILURES, explain
from hubmerge.weights.hub_files import HubFiles
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.snapshot import Snapshot


def open_repo(ref: ModelRef, *, token: str | bool | None) -> Snapshot:
    """Returns the files of a repo; see `open_snapshot`."""
    check_token(token, SourceError)
    try:
        api = HfApi(token=token, library_name="hubmerge", library_version=__version__)
        info = retried(
            lambda: api.model_info(ref.path, revision=ref.revision, timeout=HASTY.timeout_seconds), policy=HASTY
        )
        if info.sha is None:
            raise no_hub_error(ref.path)
        # By commit: the branch may move between two questions.
        tree = api.list_repo_tree(ref.path, revision=info.sha, recursive=True)
        entries = [_entry_of(file) for file in tree if isinstance(file, RepoFile)]
        files = HubFiles(ref.path, info.sha, entries=entries, token=token)
    except HUB_FAILURES as error:
        raise explain(error, ref.path, ref.revision, token=token) from error
    return Snapshot(files, sha=info.sha, gated=bool(info.gated), private=bool(info.private), repo_id=info.id)


def _entry_of(file: RepoFile) -> FileEntry:
    return FileEntry(file.path, file.size, blob_id=file.blob_id, sha256=file.lfs.sha256 if file.lfs else None)
