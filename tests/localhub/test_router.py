"""Paths as clients send them, quoted or not."""

from __future__ import annotations

import pytest
from starlette.responses import Response

from hubmerge.localhub.call import Call
from hubmerge.localhub.refusals import Refusal
from hubmerge.localhub.router import Endpoint, find_endpoint
from hubmerge.localhub.server import ENDPOINTS


def answer(call: Call) -> Response:
    raise NotImplementedError


TREE = Endpoint("GET", "/api/{kind}/{repo}/tree/{rev}/{path}", answer)
RESOLVE = Endpoint("GET", "/{prefix}{repo}/resolve/{rev}/{path}", answer)


@pytest.mark.parametrize("revision", ["refs%2Fpr%2F1", "refs/pr/1"])
def test_revisions_may_be_quoted_or_not(revision: str) -> None:
    params = TREE.match(f"/api/models/a/b/tree/{revision}/sub%2Ffolder")
    assert params == {"kind": "models", "repo": "a/b", "rev": "refs/pr/1", "path": "sub/folder"}


@pytest.mark.parametrize(
    ("path", "prefix", "repo"),
    [
        ("/a/b/resolve/main/x", "", "a/b"),
        ("/gpt2/resolve/main/x", "", "gpt2"),
        ("/datasets/a/b/resolve/main/x", "datasets/", "a/b"),
        ("/spaces/a/b/resolve/main/x", "spaces/", "a/b"),
    ],
)
def test_the_web_prefix_is_not_part_of_the_repo(path: str, prefix: str, repo: str) -> None:
    assert RESOLVE.match(path) == {"prefix": prefix, "repo": repo, "rev": "main", "path": "x"}


@pytest.mark.parametrize("name", ["refs", "discussions", "settings", "lfs-files"])
def test_a_repo_may_be_called_like_an_endpoint(name: str) -> None:
    match = find_endpoint(ENDPOINTS, "GET", f"/api/models/someone/{name}")
    assert (match.endpoint.pattern, match.params["repo"]) == ("/api/{kind}/{repo}", f"someone/{name}")


def test_head_is_answered_by_get() -> None:
    assert find_endpoint([TREE], "HEAD", "/api/models/a/b/tree/main/x").endpoint is TREE


def test_wrong_methods_and_wrong_paths_differ() -> None:
    with pytest.raises(Refusal) as method:
        find_endpoint([TREE], "PUT", "/api/models/a/b/tree/main/x")
    assert (method.value.status, method.value.headers) == (405, {"Allow": "GET"})
    with pytest.raises(Refusal) as path:
        find_endpoint([TREE], "GET", "/api/kernels/a/b/tree/main/x")
    assert path.value.status == 404
