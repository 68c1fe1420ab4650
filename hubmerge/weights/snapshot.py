"""A reference made definite: the commit is pinned, here and nowhere else, and the files are listed."""

from __future__ import annotations

from dataclasses import dataclass

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from hubmerge.errors import SourceError
from hubmerge.version import __version__
from hubmerge.weights.files import FileEntry, Files, LocalFiles
from hubmerge.weights.hub_client import HASTY, check_token, no_hub_error, retried
from hubmerge.weights.hub_errors import HUB_FAILURES, explain
from hubmerge.weights.hub_files import HubFiles
from hubmerge.weights.reference import ModelRef


@dataclass(frozen=True)
class Snapshot:
    """The files of one commit or folder, and who may read them.

    Attributes:
        sha: None for a folder.
        gated: Readers have to accept terms first.
        repo_id: The name that the repo has today, wherever the one that was asked for leads; None for a folder.
    """

    files: Files
    sha: str | None
    gated: bool
    private: bool
    repo_id: str | None = None


def open_snapshot(ref: ModelRef, *, token: str | bool | None = None) -> Snapshot:
    """Returns the files behind a reference; its adapter is another snapshot.

    `token` is as huggingface_hub takes it: None is the stored token if there is one, False is none.

    Raises:
        SourceError: There is no such model, or it may not be read.
        TransferError: The Hub does not answer.
    """
    return _open_folder(ref) if ref.is_local else _open_repo(ref, token=token)


def _open_folder(ref: ModelRef) -> Snapshot:
    if ref.folder.is_file():
        raise SourceError(f"{ref.path} is a file", hint=f"Name the folder of the checkpoint: {ref.folder.parent}")
    if not ref.folder.is_dir():
        raise SourceError(f"there is no folder {ref.path}")
    return Snapshot(LocalFiles(ref.folder), sha=None, gated=False, private=False)


def _open_repo(ref: ModelRef, *, token: str | bool | None) -> Snapshot:
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
