"""Repos on disk: settings, refs, commits and trees.

One folder per repo holds `repo.json` (settings and refs: the only file that changes), `commits/<id>.json`,
`trees/<id>.json` and `objects/<sha256>.json` (large files uploaded to this repo, committed or not).
Callers hold the Hub's lock while they read a ref and move it.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from hubmerge.localhub.git_objects import commit_id, tree_ids
from hubmerge.localhub.json_file import read_json, write_json
from hubmerge.localhub.names import is_commit_id
from hubmerge.localhub.records import Commit, FileEntry, Repo, Tree, timestamp
from hubmerge.localhub.refusals import revision_not_found

_PULL = re.compile(r"refs/pr/(\d+)")


class RepoStore:
    """Every repo under one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._root.mkdir(parents=True, exist_ok=True)
        self._moves = root / "moves.json"

    def find(self, kind: str, repo_id: str) -> Repo | None:
        """Returns the repo, also under a name that it had before."""
        moved_to = read_json(self._moves, {}).get(f"{kind}/{repo_id}", repo_id)
        data = read_json(self._folder(kind, moved_to) / "repo.json")
        return None if data is None else Repo.from_json(data)

    def all(self, kind: str) -> list[Repo]:
        """Returns every repo of a kind, newest first."""
        found = [Repo.from_json(read_json(file)) for file in self._root.glob(f"{kind}--*/repo.json")]
        return sorted(found, key=lambda repo: (repo.created_at, repo.id), reverse=True)

    def save(self, repo: Repo) -> Repo:
        """Writes settings and refs; this is the step that makes a change visible."""
        write_json(self._folder(repo.kind, repo.id) / "repo.json", repo.to_json())
        return repo

    def delete(self, repo: Repo) -> None:
        """Removes the repo; blobs stay, they may be shared."""
        doomed = self._root / f".deleted-{secrets.token_hex(8)}"
        self.folder(repo).rename(doomed)
        shutil.rmtree(doomed)

    def move(self, repo: Repo, new_id: str) -> Repo:
        """Renames the repo and leaves the old name as an alias."""
        self.folder(repo).rename(self._folder(repo.kind, new_id))
        moves = {old: new_id if new == repo.id else new for old, new in read_json(self._moves, {}).items()}
        moves.pop(f"{repo.kind}/{new_id}", None)
        write_json(self._moves, {**moves, f"{repo.kind}/{repo.id}": new_id})
        return self.save(replace(repo, id=new_id))

    def forget_alias(self, kind: str, repo_id: str) -> None:
        """Drops an old name, because a new repo takes it."""
        moves = read_json(self._moves, {})
        if moves.pop(f"{kind}/{repo_id}", None) is not None:
            write_json(self._moves, moves)

    def folder(self, repo: Repo) -> Path:
        """Returns the folder with everything of this repo."""
        return self._folder(repo.kind, repo.id)

    def commit(self, repo: Repo, oid: str) -> Commit:
        """Returns a commit; refuses an id that this repo does not have."""
        data = read_json(self.folder(repo) / "commits" / f"{oid}.json") if is_commit_id(oid) else None
        if data is None:
            raise revision_not_found(oid)
        return Commit(**data)

    def tree(self, repo: Repo, commit: Commit) -> dict[str, FileEntry]:
        """Returns every file of a commit, in path order."""
        data = read_json(self.folder(repo) / "trees" / f"{commit.tree}.json")
        return {path: FileEntry(**entry) for path, entry in data.items()}

    def resolve(self, repo: Repo, revision: str) -> Commit:
        """Returns the commit that a branch, tag, full ref, pull request or commit id points to."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        pull = _PULL.fullmatch(revision)
        oid = repo.pulls.get(pull[1]) if pull else repo.branches.get(name) or repo.tags.get(name)
        if oid is None and not is_commit_id(revision):
            raise revision_not_found(revision)
        return self.commit(repo, oid or revision)

    def history(self, repo: Repo, commit: Commit) -> Iterator[Commit]:
        """Yields the commit and its ancestors, newest first."""
        yield commit
        while commit.parent is not None:
            commit = self.commit(repo, commit.parent)
            yield commit

    def write_commit(
        self, repo: Repo, tree: Tree, *, parent: str | None, title: str, message: str, user: str
    ) -> Commit:
        """Stores a commit and its tree and returns it; no ref points to it yet."""
        ordered = {path: tree[path] for path in sorted(tree)}
        tree_oid = tree_ids({path: entry.oid for path, entry in ordered.items()})[""]
        date = timestamp()
        seconds = int(datetime.fromisoformat(date).timestamp())
        text = f"{title}\n\n{message}" if message else title
        oid = commit_id(tree=tree_oid, parent=parent, author=user, unix_seconds=seconds, message=text)
        commit = Commit(oid, tree_oid, parent, title, message, user, date)
        # the git ids of two trees agree whenever their files do, but not how those came (by Xet or not): last one wins
        write_json(self.folder(repo) / "trees" / f"{tree_oid}.json", {path: asdict(ordered[path]) for path in ordered})
        write_json(self.folder(repo) / "commits" / f"{oid}.json", asdict(commit))
        return commit

    def remember_object(self, repo: Repo, sha256: str, *, size: int, xet_hash: str | None) -> None:
        """Notes that a large file was uploaded to this repo."""
        known = self.object_record(repo, sha256)
        record = {"size": size, "xet_hash": xet_hash, "pushed_at": timestamp()}
        if known is None or (xet_hash and not known["xet_hash"]):
            write_json(self._object_file(repo, sha256), record)

    def object_record(self, repo: Repo, sha256: str) -> dict[str, Any] | None:
        """Returns `{size, xet_hash, pushed_at}` of a large file uploaded to this repo, or None."""
        record: dict[str, Any] | None = read_json(self._object_file(repo, sha256))
        return record

    def objects(self, repo: Repo) -> dict[str, dict[str, Any]]:
        """Returns the records of all large files uploaded to this repo, by sha256."""
        files = sorted((self.folder(repo) / "objects").glob("*.json"))
        return {file.stem: read_json(file) for file in files}

    def forget_object(self, repo: Repo, sha256: str) -> None:
        """Takes a large file out of this repo's uploads."""
        self._object_file(repo, sha256).unlink(missing_ok=True)

    def _object_file(self, repo: Repo, sha256: str) -> Path:
        return self.folder(repo) / "objects" / f"{sha256}.json"

    def _folder(self, kind: str, repo_id: str) -> Path:
        # repo ids never hold "--" (names.py), so this is one to one
        return self._root / f"{kind}--{repo_id.replace('/', '--')}"
