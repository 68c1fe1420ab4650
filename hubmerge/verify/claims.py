"""What recipe, lock file, card and listing say, held against each other before anything of the parents is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest

from hubmerge.card.front_matter import texts
from hubmerge.card.lock import LockedAdapter, LockedOutput, LockedParent, LockFacts
from hubmerge.merge.plan import lora_refs, model_refs
from hubmerge.merge.recipe import Recipe
from hubmerge.verify.published import Published, sha256_of
from hubmerge.verify.report import Check, Outcome
from hubmerge.weights.checkpoint import ParentKey
from hubmerge.weights.files import FileEntry
from hubmerge.weights.front_matter import parse_front_matter
from hubmerge.weights.reference import is_hub_id
from hubmerge.weights.shard_index import abbreviated

LOADED = (".safetensors", ".bin", ".pt", ".pth", ".pkl", ".py")
"""Endings of files that loaders may take weights or code from."""

_CHECKSUM = re.compile(r"^([0-9a-f]{64}) [ *](\S+)$", re.M)
"""A line that `sha256sum --check` reads."""


def check_claims(published: Published) -> Iterator[Check]:
    """Yields one check for each pair of claims that must agree."""
    lock = published.lock
    if lock is not None:
        yield _check("parents of the lock file", parents_problem(published.recipe, lock), "the recipe's, in its order")
        yield _check("files", _files_problem(published, lock), _sized(lock.outputs))
        yield _checksums(published.card, lock)
        yield from (_adapter(published, adapter) for adapter in lock.adapters)
    yield _base_models(published)


def parent_keys(recipe: Recipe) -> tuple[ParentKey, ...]:
    """Returns the models and adapters of a recipe in the order in which plans and lock files list them."""
    keys: dict[ParentKey, None] = {}
    for ref in model_refs(recipe):
        keys.setdefault((ref.without_adapter, False))
        if ref.adapter is not None:
            keys.setdefault((ref.adapter, True))
    for adapter in lora_refs(recipe):
        keys.setdefault((adapter, True))
    return tuple(keys)


def parents_problem(recipe: Recipe, lock: LockFacts) -> str | None:
    """Returns how the lock file's parents are not the recipe's, None if they are."""
    for key, locked in zip_longest(parent_keys(recipe), lock.parents):
        if locked is None:
            return f"it has none for {key[0]}"
        if key is None:
            return f"{_name(locked)} is no parent of the recipe"
        is_folder = locked.repo_id is None
        if not is_folder and (locked.repo_id, locked.revision) != (key[0].path, key[0].revision):
            return f"it has {_name(locked)} where the recipe has {key[0]}"
    return None


def _name(parent: LockedParent) -> str:
    if parent.repo_id is None:
        return "a folder"
    return parent.repo_id if parent.revision is None else f"{parent.repo_id}@{parent.revision}"


def _files_problem(published: Published, lock: LockFacts) -> str | None:
    entries = published.files.entries()
    expected = {output.path: output for output in lock.outputs}
    if missing := [path for path in expected if path not in entries]:
        return f"{abbreviated(missing)} missing"
    top = [path for path in entries if "/" not in path and path.endswith(LOADED)]
    if extra := [path for path in top if path not in expected]:
        return f"{abbreviated(extra)} not of this merge"
    changed = [path for path, output in expected.items() if not _is_same(published, entries[path], output)]
    return f"{abbreviated(changed)} not the file that the lock file describes" if changed else None


def _is_same(published: Published, entry: FileEntry, output: LockedOutput) -> bool:
    return entry.size_bytes == output.size_bytes and sha256_of(published.files, entry) == output.sha256


def _sized(outputs: tuple[LockedOutput, ...]) -> str:
    return f"sizes and SHA-256 of {len(outputs)} are the lock file's"


def _checksums(card: str, lock: LockFacts) -> Check:
    name = "checksums of the card"
    stated = {path: sha256 for sha256, path in _CHECKSUM.findall(card)}
    if not stated:  # a template need not show them
        return Check(name, Outcome.NOT_NEEDED, "the card has none")
    other = [output.path for output in lock.outputs if stated.get(output.path) != output.sha256]
    return _check(name, f"not the lock file's for {abbreviated(other)}" if other else None, "the lock file's")


def _adapter(published: Published, adapter: LockedAdapter) -> Check:
    name, entries = "adapter", published.files.entries()
    if adapter.path is None:
        return Check(name, Outcome.UNCHECKED, "the adapter that was trained is not published beside the weights")
    if adapter.path not in entries:
        return Check(name, Outcome.DIFFERS, f"{adapter.path} is missing")
    if sha256_of(published.files, entries[adapter.path]) != adapter.sha256:
        return Check(name, Outcome.DIFFERS, f"{adapter.path} is not the file that the lock file describes")
    return Check(name, Outcome.AGREES, f"SHA-256 of {adapter.path} is the lock file's")


def _base_models(published: Published) -> Check:
    name = "base_model of the card"
    stated = set(texts(parse_front_matter(published.card.encode()).get("base_model")))
    expected = _hub_parents(published)
    if not stated and published.lock is None:
        return Check(name, Outcome.NOT_NEEDED, "the card has none")
    missing = sorted(expected - stated)
    extra = [] if _has_tuned_folder(published.lock) else sorted(stated - expected)
    words = [f"lacks {abbreviated(missing)}"] if missing else []
    words += [f"has {abbreviated(extra)}, no parent of the recipe"] if extra else []
    return _check(name, " and ".join(words) or None, "the recipe's parents")


def _has_tuned_folder(lock: LockFacts | None) -> bool:
    """Whether a folder was tuned, for which the card names the models that the folder's own card names."""
    if lock is None or not lock.adapters:
        return False
    return sum(parent.repo_id is None for parent in lock.parents) > len(lock.adapters)


def _hub_parents(published: Published) -> set[str]:
    if published.lock is not None:
        named = (parent.repo_id for parent in published.lock.parents)
        return {name for name in named if name and is_hub_id(name)}
    return {ref.path for ref, _ in parent_keys(published.recipe) if not ref.is_local}


def _check(name: str, problem: str | None, agreement: str) -> Check:
    return Check(name, Outcome.AGREES, agreement) if problem is None else Check(name, Outcome.DIFFERS, problem)


def locked_files_problem(parent: LockedParent, entries: Mapping[str, FileEntry]) -> str | None:
    """Returns how the files of a parent at its commit are not those of the lock file; of a folder, sizes count."""
    for file in parent.files:
        entry = entries.get(file.path)
        if entry is None:
            return f"{_name(parent)} has no {file.path}"
        hashes = () if parent.repo_id is None else ((entry.sha256, file.sha256), (entry.blob_id, file.blob_id))
        if any(now != then for now, then in ((entry.size_bytes, file.size_bytes), *hashes)):
            return f"{file.path} of {_name(parent)} is not what the lock file says"
    return None
