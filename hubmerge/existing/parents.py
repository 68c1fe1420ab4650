"""The parents of a merge that was made some time ago, as far as they can still be seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from hubmerge.card.facts import ParentFacts
from hubmerge.card.parents import parent_facts
from hubmerge.errors import SourceError
from hubmerge.existing.found import FoundMerge
from hubmerge.lineage.declared import RepoTexts
from hubmerge.lineage.fetch import HubReader
from hubmerge.lineage.graph import State
from hubmerge.lineage.names import NamedModel, named_models
from hubmerge.lineage.published import recipe_names
from hubmerge.merge.ancestry import folder_texts
from hubmerge.merge.explain import parent_role
from hubmerge.merge.plan import model_refs
from hubmerge.merge.recipe import Recipe
from hubmerge.weights.checkpoint import CARD_FILE, CARD_LIMIT_BYTES, DEFAULT_BRANCH
from hubmerge.weights.files import Files, read_small
from hubmerge.weights.front_matter import parse_front_matter
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.snapshot import Snapshot, open_snapshot

QUESTIONS_AT_A_TIME = 4
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_LIMIT_BYTES = 64 << 20

ELSEWHERE = "it is a folder of another machine"


@dataclass(frozen=True)
class NamedParent:
    """A model or adapter as the recipe names it.

    Attributes:
        ref: None where the recipe is read for its names alone.
        role: What it is to the merge, as a phrase; empty where that is not known.
    """

    model: NamedModel
    ref: ModelRef | None
    role: str
    is_base: bool


@dataclass(frozen=True)
class SeenParent:
    """A parent that was looked for.

    Attributes:
        tokenizer: What its tokenizer.json is known by, see `tokenizer_hashes`.
        folder: What a folder of this machine says of its own descent; None for any other parent.
    """

    named: NamedParent
    facts: ParentFacts
    tokenizer: frozenset[str] = frozenset()
    folder: RepoTexts | None = None


def named_parents(merge: FoundMerge) -> tuple[NamedParent, ...]:
    """Returns every model and adapter that the recipe names, each once and in its order."""
    found = _from_recipe(merge.recipe) if merge.recipe else _from_names(merge.recipe_text)
    return tuple({parent.model.text: parent for parent in found}.values())


def seen_parents(merge: FoundMerge, *, token: str | bool | None = None) -> tuple[SeenParent, ...]:
    """Returns the parents at the commits in the lock file, else as they are now; those that are gone say why.

    Folders are looked at for a merge in a folder only: the same path on this machine is nothing of a stranger's.

    Raises:
        TransferError: The Hub does not answer.
    """
    commits = {parent.repo_id: parent.sha for parent in merge.lock.parents} if merge.lock else {}

    def look(parent: NamedParent) -> SeenParent:
        if parent.model.repo_id is None:
            return _seen_folder(parent, may_look=merge.repo_id is None)
        revision = commits.get(parent.model.repo_id) or parent.model.revision or DEFAULT_BRANCH
        return _seen_repo(parent, ModelRef(parent.model.repo_id, revision), token=token)

    with ThreadPoolExecutor(QUESTIONS_AT_A_TIME, "hubmerge-parents") as pool:
        return tuple(pool.map(look, named_parents(merge)))


def tokenizer_hashes(files: Files) -> frozenset[str]:
    """Returns the SHA-256 and the git hash of a tokenizer.json, as far as they are known; none if there is none."""
    entry = files.entries().get(TOKENIZER_FILE)
    if entry is None:
        return frozenset()
    if entry.blob_id is not None:
        return frozenset(filter(None, (entry.sha256, entry.blob_id)))
    content = read_small(files, TOKENIZER_FILE, limit_bytes=TOKENIZER_LIMIT_BYTES)
    blob = b"blob %d\0" % len(content) + content
    return frozenset((hashlib.sha256(content).hexdigest(), hashlib.sha1(blob, usedforsecurity=False).hexdigest()))


def _from_recipe(recipe: Recipe) -> Iterator[NamedParent]:
    parts = [part for ref in model_refs(recipe) for part in (ref.without_adapter, ref.adapter) if part is not None]
    base = recipe.base_model.without_adapter if isinstance(recipe.base_model, ModelRef) else None
    for part in dict.fromkeys(parts):
        yield NamedParent(_named(part), part, parent_role(recipe, part), part == base)


def _named(ref: ModelRef) -> NamedModel:
    """Returns a model by name; what `+` and `@` mean in it has been decided."""
    model, *others = named_models(ref.path)
    repo_id = None if others else model.repo_id
    return NamedModel(str(ref), repo_id, ref.revision or model.revision)


def _from_names(text: str) -> Iterator[NamedParent]:
    names = recipe_names(text)
    for name in names.models:
        is_base = name in names.bases
        for model in named_models(name):
            yield NamedParent(model, None, "base model" if is_base else "", is_base)


def _seen_folder(parent: NamedParent, *, may_look: bool) -> SeenParent:
    if may_look and parent.ref is not None and parent.ref.folder.is_dir():
        return _seen(parent, None, open_snapshot(parent.ref))
    facts = ParentFacts(label=parent.model.text, role=parent.role, is_base=parent.is_base, missing=ELSEWHERE)
    return SeenParent(parent, facts)


def _seen_repo(parent: NamedParent, ref: ModelRef, *, token: str | bool | None) -> SeenParent:
    try:
        snapshot = open_snapshot(ref, token=token)
    except SourceError as error:
        return SeenParent(parent, _unreadable(parent, ref, str(error), token=token))
    return _seen(parent, ref.path, snapshot)


def _seen(parent: NamedParent, repo_id: str | None, snapshot: Snapshot) -> SeenParent:
    with closing(snapshot.files) as files:
        facts = parent_facts(
            parse_front_matter(_card(files)),
            label=parent.model.text,
            role=parent.role,
            repo_id=repo_id,
            sha=snapshot.sha,
            gated=snapshot.gated,
            is_base=parent.is_base,
        )
        folder = folder_texts(parent.model.text, files) if repo_id is None else None
        return SeenParent(parent, facts, tokenizer_hashes(files), folder)


def _card(files: Files) -> bytes:
    entry = files.entries().get(CARD_FILE)
    return b"" if entry is None or entry.size_bytes > CARD_LIMIT_BYTES else files.read(CARD_FILE, 0, entry.size_bytes)


def _unreadable(parent: NamedParent, ref: ModelRef, reason: str, *, token: str | bool | None) -> ParentFacts:
    """Returns what the Hub tells everybody of a gated repo, or the name and the reason why there is no more."""
    found = HubReader(token=token).find(NamedModel(parent.model.text, ref.path, ref.revision))
    texts = found.texts if found.state is State.GATED else None
    return parent_facts(
        texts.metadata if texts else {},
        label=parent.model.text,
        role=parent.role,
        repo_id=ref.path,
        sha=texts.sha if texts else None,
        gated=found.state is State.GATED,
        is_base=parent.is_base,
        missing=None if texts else reason,
    )


def commits_of(parents: Sequence[SeenParent]) -> dict[ModelRef, str | None]:
    """Returns the commit of each parent by the recipe's reference."""
    return {parent.named.ref: parent.facts.sha for parent in parents if parent.named.ref is not None}
