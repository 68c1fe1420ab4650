"""Everything one local Hub keeps, opened from its folder."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hubmerge.errors import HubServerError
from hubmerge.localhub.accounts import Accounts
from hubmerge.localhub.automation import Automation
from hubmerge.localhub.blobs import BlobStore
from hubmerge.localhub.cas import XetCas
from hubmerge.localhub.discussions import DiscussionStore
from hubmerge.localhub.options import HubOptions
from hubmerge.localhub.repos import RepoStore
from hubmerge.localhub.signing import UrlSigner


@dataclass(frozen=True)
class State:
    """The stores of one Hub.

    Attributes:
        lock: Held while refs, settings or discussions are read and changed.
        cas: The Xet store; None where the transport is plain LFS.
        root: The folder of it all.
    """

    root: Path
    options: HubOptions
    lock: threading.RLock
    accounts: Accounts
    blobs: BlobStore
    repos: RepoStore
    discussions: DiscussionStore
    automation: Automation
    signer: UrlSigner
    cas: XetCas | None


def open_state(root: Path, options: HubOptions) -> State:
    """Returns the Hub stored in a folder, a new one with the user `local` if the folder is empty."""
    secret = _secret(root / "secret.key")
    repos = RepoStore(root / "repos")
    return State(
        root=root,
        options=options,
        lock=threading.RLock(),
        accounts=Accounts(root),
        blobs=BlobStore(root / "blobs"),
        repos=repos,
        discussions=DiscussionStore(repos),
        automation=Automation(root / "automation.json"),
        signer=UrlSigner(secret, options.signed_url_seconds),
        cas=XetCas(root / "cas", secret=secret) if options.transport == "xet" else None,
    )


def lock_folder(root: Path) -> IO[str]:
    """Returns an open lock file that keeps other processes off the folder until it is closed.

    Raises:
        HubServerError: Another Hub serves the folder.
    """
    root.mkdir(parents=True, exist_ok=True)
    file = (root / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise HubServerError(f"another local Hub is serving {root}", hint="stop it, or serve another folder") from None
    return file


def _secret(file: Path) -> bytes:
    if not file.exists():
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(handle, secrets.token_bytes(32))
        os.close(handle)
    return file.read_bytes()
