"""Making commits: storing what they add, moving the branch or pull request under the lock, merging."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hubmerge.localhub.changes import (
    AddLarge,
    AddRegular,
    Change,
    DeleteFile,
    Header,
    PutEntry,
    StoredChange,
    apply_changes,
    changed_paths,
)
from hubmerge.localhub.discussions import Discussion, commit_event, status_event
from hubmerge.localhub.records import Commit, FileEntry, Repo, Tree
from hubmerge.localhub.refusals import Refusal, bad_request, conflict, revision_not_found
from hubmerge.localhub.state import State
from hubmerge.localhub.xet_format import XetFormatError

_FIRST_FILE = (
    "*.bin filter=lfs diff=lfs merge=lfs -text\n"
    "*.gguf filter=lfs diff=lfs merge=lfs -text\n"
    "*.parquet filter=lfs diff=lfs merge=lfs -text\n"
    "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
)


@dataclass(frozen=True)
class PullRequest:
    """A pull request just opened by a commit."""

    commit: Commit
    num: int


def first_commit(state: State, repo: Repo, *, user: str) -> Repo:
    """Gives a new repo its initial commit on main, as the Hub does, and saves it."""
    tree = {".gitattributes": state.blobs.add_regular(_FIRST_FILE.encode())}
    commit = state.repos.write_commit(repo, tree, parent=None, title="initial commit", message="", user=user)
    return state.repos.save(replace(repo, branches={"main": commit.oid}))


def commit_to_ref(
    state: State, repo: Repo, revision: str, header: Header, changes: Iterable[Change], *, user: str
) -> Commit:
    """Applies changes on top of a branch or pull request in one step and returns the commit.

    Raises:
        Refusal: 412 where `header.parent` is not the head any more; 400 and 404 for changes that cannot be applied.
    """
    stored = store_changes(state, repo, changes)
    with state.lock:
        repo = _reload(state, repo)
        head = _head_for_writing(state, repo, revision)
        if header.parent not in (None, head.oid):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        commit = _commit_on(state, repo, head, header, stored, user=user)
        _advance(state, repo, revision, commit)
    return commit


def commit_as_pull_request(
    state: State, repo: Repo, revision: str, header: Header, changes: Iterable[Change], *, user: str
) -> PullRequest:
    """Puts changes into a new pull request against a branch, which itself stays as it is."""
    stored = store_changes(state, repo, changes)
    with state.lock:
        repo = _reload(state, repo)
        base = state.repos.resolve(repo, header.parent or revision)
        commit = _commit_on(state, repo, base, header, stored, user=user)
        opened = state.discussions.create(
            repo, title=header.title, description=header.message, author=user, status="open", base_commit=base.oid
        )
        _advance(state, repo, f"refs/pr/{opened.num}", commit)
    return PullRequest(commit, opened.num)


def store_changes(state: State, repo: Repo, changes: Iterable[Change]) -> list[StoredChange]:
    """Returns the changes with every added content in the blob store; slow, so done before the lock is taken."""
    stored: list[StoredChange] = []
    for change in changes:
        match change:
            case AddRegular(path, content):
                stored.append(PutEntry(path, state.blobs.add_regular(content)))
            case AddLarge(path, sha256, size):
                stored.append(PutEntry(path, _large_entry(state, repo, path, sha256, size)))
            case _:
                stored.append(change)
    return stored


def object_entry(state: State, repo: Repo, sha256: str) -> FileEntry | None:
    """Returns the entry of a large file uploaded by LFS to this repo, or by Xet; None if it never was.

    A file that came by Xet is rebuilt from its chunks here, once, and its sha256 checked.
    """
    record = state.repos.object_record(repo, sha256)
    xet_hash = state.cas.file_hash(sha256) if state.cas is not None else None
    if record is None and xet_hash is None:
        return None
    if not state.blobs.has(sha256):
        if xet_hash is None:
            return None
        _rebuild(state, sha256, xet_hash)
    state.repos.remember_object(repo, sha256, size=state.blobs.size(sha256), xet_hash=xet_hash)
    return state.blobs.large_entry(sha256, xet_hash=xet_hash)


def merge_pull_request(state: State, repo: Repo, num: int, *, user: str) -> Commit:
    """Squashes a pull request into one commit on main and returns it.

    Raises:
        Refusal: 400 for a draft or anything that is not open; 409 where main changed the same files meanwhile.
    """
    with state.lock:
        repo = _reload(state, repo)
        pull = state.discussions.get(repo, num)
        _check_mergeable(pull)
        main = state.repos.resolve(repo, "main")
        if files := conflicting_files(state, repo, pull):
            raise conflict(f"This pull request has conflicts in {', '.join(files)}")
        stored = _pull_request_changes(state, repo, pull)
        header = Header(f"{pull.title} (#{num})", "", None)
        commit = _commit_on(state, repo, main, header, stored, user=user)
        _advance(state, repo, "main", commit)
        merged = pull.with_event(status_event(user, "merged"), status="merged", merge_commit=commit.oid)
        state.discussions.save(repo, merged)
    return commit


def conflicting_files(state: State, repo: Repo, pull: Discussion) -> list[str]:
    """Returns the files that the pull request and main changed differently since it was opened."""
    base, head = pull_request_trees(state, repo, pull)
    main = state.repos.tree(repo, state.repos.resolve(repo, "main"))
    both = {*changed_paths(base, head)} & {*changed_paths(base, main)} & {*changed_paths(head, main)}
    return sorted(both)


def pull_request_trees(state: State, repo: Repo, pull: Discussion) -> tuple[Tree, Tree]:
    """Returns the files before and after a pull request."""
    assert pull.base_commit is not None, "a discussion has no trees"
    base = state.repos.commit(repo, pull.base_commit)
    head = state.repos.resolve(repo, f"refs/pr/{pull.num}")
    return state.repos.tree(repo, base), state.repos.tree(repo, head)


def _pull_request_changes(state: State, repo: Repo, pull: Discussion) -> list[StoredChange]:
    base, head = pull_request_trees(state, repo, pull)
    main = state.repos.tree(repo, state.repos.resolve(repo, "main"))
    paths = [path for path in changed_paths(base, head) if path in head or path in main]
    return [PutEntry(path, head[path]) if path in head else DeleteFile(path) for path in paths]


def _check_mergeable(pull: Discussion) -> None:
    if not pull.is_pull_request:
        raise bad_request("This discussion is not a pull request")
    if pull.status == "draft":
        raise bad_request("This pull request is a draft: mark it as ready for review before merging")
    if pull.status != "open":
        raise bad_request(f"This pull request is {pull.status}")


def _commit_on(
    state: State, repo: Repo, parent: Commit, header: Header, changes: Iterable[StoredChange], *, user: str
) -> Commit:
    tree = apply_changes(state.repos.tree(repo, parent), changes)
    return state.repos.write_commit(
        repo, tree, parent=parent.oid, title=header.title, message=header.message, user=user
    )


def _head_for_writing(state: State, repo: Repo, revision: str) -> Commit:
    name = revision.removeprefix("refs/heads/")
    if name not in repo.branches and not revision.startswith("refs/pr/"):
        raise revision_not_found(revision)
    return state.repos.resolve(repo, revision)


def _advance(state: State, repo: Repo, revision: str, commit: Commit) -> None:
    """Moves a branch or pull request to a new commit, the last step of every way to commit."""
    number = revision.removeprefix("refs/pr/")
    if number != revision:
        state.repos.save(replace(repo, pulls={**repo.pulls, number: commit.oid}))
        pull = state.discussions.get(repo, int(number))
        state.discussions.save(repo, pull.with_event(commit_event(commit.author, commit.title, commit.oid)))
        return
    branch = revision.removeprefix("refs/heads/")
    state.repos.save(replace(repo, branches={**repo.branches, branch: commit.oid}))
    state.automation.note_commit(repo, f"refs/heads/{branch}", old=commit.parent or "", new=commit.oid)


def _large_entry(state: State, repo: Repo, path: str, sha256: str, size: int | None) -> FileEntry:
    entry = object_entry(state, repo, sha256)
    if entry is None:
        raise bad_request(f"{path}: no file with sha256 {sha256} was uploaded to {repo.id}")
    if size not in (None, entry.size):
        raise bad_request(f"{path}: the uploaded file has {entry.size} bytes, not {size}")
    return entry


def _rebuild(state: State, sha256: str, xet_hash: str) -> None:
    assert state.cas is not None, "a Xet hash comes from a Xet store"
    scratch = state.blobs.scratch_path()
    try:
        actual = state.cas.write_file(xet_hash, scratch)
        if actual != sha256:
            raise bad_request(f"The chunks of {xet_hash} have sha256 {actual}, announced was {sha256}")
        state.blobs.adopt(scratch, sha256)
    except (KeyError, XetFormatError) as error:
        raise bad_request(f"The chunks of {xet_hash} cannot be put together: {error}") from error
    finally:
        scratch.unlink(missing_ok=True)


def _reload(state: State, repo: Repo) -> Repo:
    fresh = state.repos.find(repo.kind, repo.id)
    if fresh is None:
        raise Refusal(404, "Repository not found", code="RepoNotFound")
    return fresh
