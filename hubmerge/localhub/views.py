"""Repos, files and discussions the way the API shows them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from hubmerge.localhub import cards
from hubmerge.localhub.commits import conflicting_files, pull_request_trees
from hubmerge.localhub.discussions import Discussion
from hubmerge.localhub.git_objects import lfs_pointer
from hubmerge.localhub.names import web_prefix
from hubmerge.localhub.records import Commit, FileEntry, Repo, Tree
from hubmerge.localhub.safetensors_headers import parameter_counts, read_header
from hubmerge.localhub.state import State
from hubmerge.localhub.text_diff import tree_diff


def repo_view(state: State, repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    """Returns all that the API says of a repo at a commit; with `blobs`, sizes and ids of its files too."""
    tree = state.repos.tree(repo, commit)
    card = _card(state, tree)
    config = _json_file(state, tree, "config.json")
    view = {
        "_id": hashlib.md5(f"{repo.kind}/{repo.id}".encode(), usedforsecurity=False).hexdigest()[:24],
        "id": repo.id,
        "author": repo.namespace,
        "sha": commit.oid,
        "createdAt": repo.created_at,
        "lastModified": commit.date,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": cards.tags(card, config, tree),
        "cardData": card or None,
        "siblings": [_sibling(path, entry, blobs=blobs) for path, entry in tree.items()],
        "usedStorage": sum(record["size"] for record in state.repos.objects(repo).values()),
    }
    if repo.kind == "models":
        view |= _model_fields(state, tree, card, config)
    if repo.kind == "spaces":
        view["sdk"] = repo.sdk
    return view


def chosen_fields(view: Mapping[str, Any], expand: Iterable[str]) -> dict[str, Any]:
    """Returns the fields that `expand` names, beside the ids; all where it names none."""
    wanted = set(expand)
    return {name: value for name, value in view.items() if not wanted or name in wanted or name in ("_id", "id")}


def file_view(path: str, entry: FileEntry, *, xet: bool) -> dict[str, Any]:
    """Returns one file of a tree listing."""
    view: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.large:
        pointer_size = len(lfs_pointer(entry.sha256, entry.size))
        view["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": pointer_size}
    if entry.xet_hash and xet:
        view["xetHash"] = entry.xet_hash
    return view


def discussion_view(repo: Repo, discussion: Discussion) -> dict[str, Any]:
    """Returns a discussion as lists show it."""
    return {
        "num": discussion.num,
        "title": discussion.title,
        "author": {"name": discussion.author},
        "createdAt": discussion.created_at,
        "status": discussion.status,
        "repo": {"name": repo.id, "type": repo.type},
        "isPullRequest": discussion.is_pull_request,
        "numComments": sum(event["type"] == "comment" for event in discussion.events),
    }


def discussion_details(state: State, repo: Repo, discussion: Discussion, *, diff: bool) -> dict[str, Any]:
    """Returns a discussion with its events and, for a pull request, what it changes."""
    view = {**discussion_view(repo, discussion), "events": list(discussion.events)}
    if discussion.is_pull_request:
        view["changes"] = {"base": "refs/heads/main", "mergeCommitId": discussion.merge_commit}
        merged = discussion.status == "merged"
        view["filesWithConflicts"] = [] if merged else conflicting_files(state, repo, discussion)
        if diff:
            view["diff"] = tree_diff(*pull_request_trees(state, repo, discussion), read=state.blobs.read)
    return view


def repo_page(origin: str, repo: Repo) -> str:
    """Returns the web address of a repo."""
    return f"{origin}/{web_prefix(repo.kind)}{repo.id}"


def _model_fields(state: State, tree: Tree, card: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"pipeline_tag": _pipeline_tag(card, config)}
    fields["library_name"] = card.get("library_name") or ("transformers" if "model_type" in config else None)
    if config:
        fields["config"] = {name: config[name] for name in ("architectures", "model_type") if name in config}
    if parents := cards.base_models(card):
        models = [{"_id": "", "id": each} for each in parents]
        fields["baseModels"] = {"relation": cards.relation(card, tree), "models": models}
    if counts := _parameter_counts(state, tree):
        fields["safetensors"] = {"parameters": counts, "total": sum(counts.values())}
    return fields


def _pipeline_tag(card: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    if "pipeline_tag" in card:
        return str(card["pipeline_tag"])
    architectures = config.get("architectures")
    is_causal = isinstance(architectures, list) and any(str(name).endswith("ForCausalLM") for name in architectures)
    return "text-generation" if is_causal else None


def _parameter_counts(state: State, tree: Tree) -> dict[str, int]:
    files = [entry for path, entry in tree.items() if path.endswith(".safetensors") and "/" not in path]
    headers = (read_header(state.blobs.path(entry.sha256)) for entry in files)
    return parameter_counts(header for header in headers if header is not None)


def _card(state: State, tree: Tree) -> dict[str, Any]:
    if "README.md" not in tree or tree["README.md"].large:
        return {}
    return cards.metadata(state.blobs.read(tree["README.md"].sha256).decode("utf-8", "replace"))


def _json_file(state: State, tree: Tree, path: str) -> dict[str, Any]:
    if path not in tree or tree[path].large:
        return {}
    try:
        value = json.loads(state.blobs.read(tree[path].sha256))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _sibling(path: str, entry: FileEntry, *, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if blobs:
        sibling |= {"size": entry.size, "blobId": entry.oid}
    if blobs and entry.large:
        pointer_size = len(lfs_pointer(entry.sha256, entry.size))
        sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": pointer_size}
    return sibling
