"""A reference made definite: the commit is pinned, and the files are listed."""

from __future__ import annotations

from dataclasses import dataclass

from hubmerge.errors import SourceError
from hubmerge.weights.files import Files, LocalFiles
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
    if ref.is_local:
        return _open_folder(ref)
    from hubmerge.weights.hub_snapshot import open_repo  # the Hub's client takes as long to import as all the rest

    return open_repo(ref, token=token)


def _open_folder(ref: ModelRef) -> Snapshot:
    if ref.revision is not None:
        raise SourceError(f"`{ref.path}` is a local folder, which has no revision `{ref.revision}`")
    if ref.folder.is_file():
        raise SourceError(f"{ref.path} is a file", hint=f"Name the folder of the checkpoint: {ref.folder.parent}")
    if not ref.folder.is_dir():
        raise SourceError(f"there is no folder {ref.path}")
    return Snapshot(LocalFiles(ref.folder), sha=None, gated=False, private=False)
