"""From announcing files to the commit."""

from __future__ import annotations

import base64
import binascii
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from hubmerge.localhub.accounts import may_write
from hubmerge.localhub.call import Call
from hubmerge.localhub.changes import parse_body
from hubmerge.localhub.commits import commit_as_pull_request, commit_to_ref
from hubmerge.localhub.names import check_file_path, check_size, web_prefix
from hubmerge.localhub.records import FileEntry, Repo, Tree
from hubmerge.localhub.refusals import bad_request, forbidden
from hubmerge.localhub.router import Endpoint

LARGE_NAMES = (
    "*.bin",
    "*.gguf",
    "*.gz",
    "*.h5",
    "*.msgpack",
    "*.npz",
    "*.onnx",
    "*.parquet",
    "*.pt",
    "*.pth",
    "*.safetensors",
    "*.tar",
    "*.zip",
)
"""Files of these names are large at any size, as the Hub's own .gitattributes has it."""


def _preupload(call: Call) -> Response:
    """Says of each announced file whether it is large, ignored, or there already."""
    repo = call.downloadable(call.repo())
    call.writer()
    tree = call.tree(repo)
    body = call.json()
    ignored = _ignored_patterns(call, body, tree)
    files = [_mode(call, file, tree, ignored) for file in call.records("files")]
    return JSONResponse({"files": files})


def _mode(call: Call, file: Mapping[str, Any], tree: Tree, ignored: Sequence[str]) -> dict[str, Any]:
    path = check_file_path(str(file.get("path")))
    large = _is_large(call, path, check_size(file.get("size")), str(file.get("sample", "")))
    known = tree.get(path)
    return {
        "path": path,
        "uploadMode": "lfs" if large else "regular",
        "shouldIgnore": any(_ignores(pattern, path) for pattern in ignored),
        "oid": _known_oid(known),
    }


def _known_oid(entry: FileEntry | None) -> str | None:
    if entry is None:
        return None
    return entry.sha256 if entry.large else entry.oid


def _is_large(call: Call, path: str, size: int, sample: str) -> bool:
    if size == 0:
        return False
    name = path.rpartition("/")[2]
    if size >= call.state.options.large_file_bytes or any(fnmatch.fnmatchcase(name, each) for each in LARGE_NAMES):
        return True
    return _is_binary(sample)


def _is_binary(sample: str) -> bool:
    try:
        return b"\0" in base64.b64decode(sample, validate=True)
    except binascii.Error:
        raise bad_request("The sample of a file is not base64") from None


def _ignored_patterns(call: Call, body: Mapping[str, Any], tree: Tree) -> list[str]:
    text = body.get("gitIgnore")
    if text is None and ".gitignore" in tree:
        text = call.state.blobs.read(tree[".gitignore"].sha256).decode("utf-8", "replace")
    lines = (line.strip() for line in str(text or "").splitlines())
    return [line for line in lines if line and not line.startswith(("#", "!"))]


def _ignores(pattern: str, path: str) -> bool:
    # names, folders and globs; not the whole of gitignore: no negation
    pattern = pattern.removeprefix("/").rstrip("/")
    parents = [path, *(path[:index] for index, letter in enumerate(path) if letter == "/")]
    names = [each.rpartition("/")[2] for each in parents]
    return any(fnmatch.fnmatchcase(each, pattern) for each in (*parents, *([] if "/" in pattern else names)))


def _commit(call: Call) -> Response:
    repo = call.downloadable(call.repo())
    author = call.writer().user
    revision = call.params["rev"]
    header, changes = parse_body(iter(call.body))
    if call.flag("create_pr"):
        opened = commit_as_pull_request(call.state, repo, revision, header, changes, user=author)
        return _committed(call, repo, opened.commit.oid, num=opened.num)
    _check_may_commit(call, repo, revision)
    commit = commit_to_ref(call.state, repo, revision, header, changes, user=author)
    return _committed(call, repo, commit.oid)


def _check_may_commit(call: Call, repo: Repo, revision: str) -> None:
    if may_write(call.identity, repo):
        return
    number = revision.removeprefix("refs/pr/")
    if number in repo.pulls:
        pull = call.state.discussions.get(repo, int(number))
        if pull.author == call.writer().user:
            return
    raise forbidden("You don't have the rights to commit here; pass `create_pr=1` to open a pull request instead")


def _committed(call: Call, repo: Repo, oid: str, *, num: int | None = None) -> Response:
    page = f"{call.origin}/{web_prefix(repo.kind)}{repo.id}"
    answer = {"success": True, "commitOid": oid, "commitUrl": f"{page}/commit/{oid}", "hookOutput": ""}
    if num is not None:
        answer["pullRequestUrl"] = f"{page}/discussions/{num}"
    return JSONResponse(answer)


ENDPOINTS = (
    Endpoint("POST", "/api/{kind}/{repo}/preupload/{rev}", _preupload),
    Endpoint("POST", "/api/{kind}/{repo}/commit/{rev}", _commit),
)
