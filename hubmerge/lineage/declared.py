"""What one repo says about its own descent: card, tags, recipe and adapter config put together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hubmerge.card.front_matter import texts
from hubmerge.lineage.graph import Evidence, Relation
from hubmerge.lineage.names import NamedModel, named_models
from hubmerge.lineage.prose import contamination_warnings, described_parents
from hubmerge.lineage.published import CONFIG_FILE, RecipeNames, fenced_recipe, recipe_names
from hubmerge.weights.front_matter import parse_front_matter, split_card

ADAPTER_FILE = "adapter_config.json"

MOST_PARENTS = 500
"""Of one model; merges of a few dozen are known."""

_TAG = re.compile(r"base_model:(?:(adapter|finetune|merge|quantized):)?(.+)")
_QUANTIZED = re.compile(
    r"(?:^|[-_.])(?:gguf|ggml|gptq|awq|exl2|hqq|bnb|int4|int8|[2-8]bit|[\d.]+bpw|fp8|mlx)(?:$|[-_.])", re.I
)
_TRAINING = ("dpo", "orpo", "kto", "ppo", "grpo", "rlhf", "sft")
_NAMING_KEYS = ("name", "id", "model", "repo", "repo_id", "path", "base_model", "model_id", "url")


@dataclass(frozen=True, kw_only=True)
class RepoTexts:
    """The small files of a repo that tell of its descent.

    Attributes:
        metadata: Front matter of the card.
        body: The rest of the card.
        tags: What the Hub derived, where it was asked; cards repeat such tags too.
        recipe: mergekit_config.yml.
        adapter: adapter_config.json.
    """

    repo_id: str
    sha: str | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    body: str = ""
    tags: tuple[str, ...] = ()
    recipe: str | None = None
    adapter: str | None = None


@dataclass(frozen=True)
class Parent:
    """A parent as its child declares it; see `Edge`."""

    model: NamedModel
    is_base: bool
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a repo declares; see `Node` for the attributes that have the same names."""

    parents: tuple[Parent, ...]
    relation: Relation | None
    method: str | None = None
    recipe: str | None = None
    contamination: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def card_texts(repo_id: str, sha: str | None, readme: bytes | None) -> RepoTexts:
    """Returns what a README.md holds; None is a repo without one."""
    content = readme or b""
    body = split_card(content.decode(errors="replace"))[1]
    return RepoTexts(repo_id=repo_id, sha=sha, metadata=parse_front_matter(content), body=body)


def wanted_files(card: RepoTexts) -> tuple[str, ...]:
    """Returns the files beside the card that may say more: a question for each of them costs the Hub something."""
    tags, library = set(texts(card.metadata.get("tags"))), card.metadata.get("library_name")
    says_nothing = not any(_strings(card.metadata.get("base_model")))
    merges = bool(tags & {"merge", "mergekit", "hubmerge"}) or "mergekit" in card.body.lower()
    adapts = library == "peft" or bool(tags & {"adapter", "lora", "peft", "qlora"})
    return tuple(name for name, asked in ((CONFIG_FILE, merges), (ADAPTER_FILE, adapts)) if asked or says_nothing)


def declared(repo: RepoTexts) -> Declared:
    """Returns the parents of a repo and how it was made from them, from all that it says.

    A repo that is no merge may show its parent's recipe, as quantised copies with their original's card do: recipes
    count only where a merge declares them.
    """
    recipe = repo.recipe or fenced_recipe(repo.body)
    names = recipe_names(recipe) if recipe is not None else None
    own = list(_from_metadata(repo))
    relation = _relation(repo, own, names)
    if relation is Relation.MERGE and names is not None:
        own += _from_recipe(names, Evidence.RECIPE if repo.recipe else Evidence.README_RECIPE)
    parents = _joined(own or _from_prose(repo))
    return Declared(
        parents=parents[:MOST_PARENTS],
        relation=relation or (Relation.FINETUNE if parents else None),
        method=_method(repo, relation, names),
        recipe=recipe if relation is Relation.MERGE else None,
        contamination=contamination_warnings(repo.body),
        problems=(*_problems(repo, names), *_too_many(parents)),
    )


def _from_metadata(repo: RepoTexts) -> Iterator[Parent]:
    for name in _strings(repo.metadata.get("base_model")):
        yield from _parents(name, Evidence.CARD)
    for _, name in _tagged(repo):
        yield from _parents(name, Evidence.TAG)
    for name in texts(_adapter_config(repo).get("base_model_name_or_path")):
        yield from _parents(name, Evidence.ADAPTER)


def _from_recipe(names: RecipeNames, evidence: Evidence) -> Iterator[Parent]:
    for name in names.models:
        yield from _parents(name, evidence, is_base=name in names.bases)


def _from_prose(repo: RepoTexts) -> Iterator[Parent]:
    for name in described_parents(repo.body):
        yield from _parents(name, Evidence.PROSE)


def _parents(name: str, evidence: Evidence, *, is_base: bool = False) -> Iterator[Parent]:
    for model in named_models(name):
        yield Parent(model, is_base, (evidence,))


def _joined(parents: Iterable[Parent]) -> tuple[Parent, ...]:
    """Returns each parent once: named in several places, it keeps the revision that one of them states."""
    found: dict[str, Parent] = {}
    for parent in parents:
        key = parent.model.repo_id or parent.model.text
        known = found.get(key, parent)
        model = known.model if known.model.revision else parent.model
        evidence = tuple(dict.fromkeys((*known.evidence, *parent.evidence)))
        found[key] = Parent(model, known.is_base or parent.is_base, evidence)
    return tuple(found.values())


def _relation(repo: RepoTexts, parents: list[Parent], names: RecipeNames | None) -> Relation | None:
    stated = [str(repo.metadata.get("base_model_relation")), *(relation for relation, _ in _tagged(repo))]
    known = next((Relation(text) for text in stated if text in list(Relation)), None)
    if known is not None:
        return known
    if repo.adapter is not None or repo.metadata.get("library_name") == "peft":
        return Relation.ADAPTER
    if parents and _is_quantized(repo):
        return Relation.QUANTIZED
    if len(_joined(parents)) > 1 or (names is not None and not _is_copied(repo, parents, names)):
        return Relation.MERGE
    return Relation.FINETUNE if parents else None


def _is_copied(repo: RepoTexts, parents: list[Parent], names: RecipeNames) -> bool:
    """Returns whether a card shows another model's recipe: one that has nothing of the parent that it declares."""
    if repo.recipe is not None or not parents:
        return False
    merged = {model.repo_id for name in names.models for model in named_models(name)}
    return not merged & {parent.model.repo_id for parent in parents}


def _is_quantized(repo: RepoTexts) -> bool:
    if "quantized_by" in repo.metadata or repo.metadata.get("library_name") == "gguf":
        return True
    return any(_QUANTIZED.search(text) for text in (repo.repo_id, *texts(repo.metadata.get("tags"))))


def _method(repo: RepoTexts, relation: Relation | None, names: RecipeNames | None) -> str | None:
    if relation is Relation.MERGE:
        return names.method if names is not None else None
    tags = [tag.lower() for tag in texts(repo.metadata.get("tags"))]
    return next((tag for tag in tags if tag in _TRAINING), None) if relation is not Relation.QUANTIZED else None


def _problems(repo: RepoTexts, names: RecipeNames | None) -> tuple[str, ...]:
    problems = []
    if names is not None and names.is_broken:
        problems.append(f"{CONFIG_FILE if repo.recipe else 'the recipe in README.md'} is not valid YAML")
    if repo.adapter is not None and not _adapter_config(repo):
        problems.append(f"{ADAPTER_FILE} is not a JSON object")
    return tuple(problems)


def _too_many(parents: Sequence[Parent]) -> tuple[str, ...]:
    if len(parents) <= MOST_PARENTS:
        return ()
    return (f"it names {len(parents):,} models as its parents, and only the first {MOST_PARENTS} were looked at",)


def _tagged(repo: RepoTexts) -> Iterator[tuple[str, str]]:
    """Yields relation, empty where the tag has none, and name of the parents among the tags."""
    for tag in dict.fromkeys((*texts(repo.metadata.get("tags")), *repo.tags)):
        if match := _TAG.fullmatch(tag):
            yield match[1] or "", match[2]


def _adapter_config(repo: RepoTexts) -> Mapping[str, Any]:
    try:
        config = json.loads(repo.adapter or "null")
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _strings(value: object) -> Iterator[str]:
    """Yields the names in a `base_model`, whatever shape somebody gave it."""
    if isinstance(value, str):
        yield from (part.strip() for part in value.split(",") if part.strip())
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key in _NAMING_KEYS:
            yield from _strings(value.get(key))
