"""The front matter of a merge: which keys say what, and what of an earlier card stays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hubmerge.card.facts import LicenceDecision, MergeFacts, TuningFacts
from hubmerge.card.front_matter import texts
from hubmerge.weights.reference import is_hub_id

OWN_TAGS = ("merge", "mergekit", "hubmerge")
"""`mergekit` because bots find merges, and the mergekit_config.yml beside the card, by it."""

CARRIED_TAGS = ("not-for-all-audiences",)
"""Tags that a merge takes over from any parent."""

_OWN_KEYS = ("base_model", "base_model_relation", "library_name", "license", "license_name", "license_link")
_SHARED_KEYS = ("tags", "language", "datasets")

_LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")
_DATASET_BUILDERS = frozenset({"arrow", "audiofolder", "csv", "generator", "imagefolder", "json", "parquet", "text"})
"""What trainers write for data without an id: the name of the loader."""


def card_metadata(facts: MergeFacts) -> dict[str, Any]:
    """Returns the front matter of a merge in its final order; what is not known is left out."""
    base_models = _distinct(parent.repo_id for parent in facts.parents if parent.repo_id and is_hub_id(parent.repo_id))
    languages = _distinct(language for parent in facts.parents for language in parent.languages)
    datasets = _distinct(dataset for parent in facts.parents for dataset in parent.datasets)
    tuning = facts.tuning
    if tuning is not None:
        base_models = _distinct(tuning.base_models)
        datasets = _distinct([*(each.name for each in tuning.data if not each.is_local), *datasets])
    metadata = {
        "base_model": base_models[0] if tuning and len(base_models) == 1 else base_models,
        "base_model_relation": _relation(facts),
        "library_name": "peft" if tuning and tuning.is_adapter else "transformers",
        "pipeline_tag": facts.pipeline_tag,
        "tags": _tags(facts),
        "language": [language for language in languages if _LANGUAGE.fullmatch(language)],
        **_licence(facts.licence),
        "datasets": [name for name in datasets if _is_dataset(name)],
        "model-index": None if tuning is None else _model_index(facts, tuning),
    }
    return {key: value for key, value in metadata.items() if value}


def merge_metadata(own: Mapping[str, Any], previous: Mapping[str, Any]) -> dict[str, Any]:
    """Returns our front matter with what else an earlier card has: its own keys, tags, languages and data sets.

    What only a merge tool knows (the parents, the licence) is ours alone: an earlier value goes even if we have none.
    Keys that no reader of cards knows are mended: `dataset` is `datasets`, `licence` says nothing.
    """
    merged = dict(own)
    previous = _mended(previous)
    for key in _SHARED_KEYS:
        if key in previous:
            merged[key] = _distinct((*texts(own.get(key)), *texts(previous[key])))
    extra = {key: value for key, value in previous.items() if key not in merged and key not in _OWN_KEYS}
    return {**merged, **extra}


def _relation(facts: MergeFacts) -> str:
    if facts.tuning is None:
        return "merge"
    return "adapter" if facts.tuning.is_adapter else "finetune"


def _model_index(facts: MergeFacts, tuning: TuningFacts) -> list[dict[str, Any]]:
    """Returns the measurements as the Hub reads them: https://github.com/huggingface/hub-docs, modelcard.md."""
    names = ", ".join(each.name for each in tuning.data)
    result = {
        "task": {"type": "text-generation", "name": "Preference of held-out pairs"},
        "dataset": {"type": tuning.data[0].name, "name": f"{tuning.held_out} held-out pairs of {names}"},
        "metrics": [{"type": each.id, "name": each.title, "value": each.value} for each in tuning.metrics],
    }
    return [{"name": facts.title, "results": [result]}]


def _licence(decision: LicenceDecision) -> dict[str, str | None]:
    """Returns the keys of a licence, none while a person has yet to decide."""
    if not decision.is_settled:
        return {}
    return {"license": decision.license, "license_name": decision.name, "license_link": decision.link}


def _mended(previous: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an earlier card's metadata without the mistakes of the tools that write most cards."""
    mended = {key: value for key, value in previous.items() if key not in ("datasets", "dataset", "licence")}
    datasets = [name for key in ("datasets", "dataset") for name in texts(previous.get(key)) if _is_dataset(name)]
    return mended | ({"datasets": datasets} if datasets else {})


def _is_dataset(name: str) -> bool:
    return is_hub_id(name) and name not in _DATASET_BUILDERS


def _tags(facts: MergeFacts) -> list[str]:
    inherited = {tag for parent in facts.parents for tag in parent.tags}
    tuning = facts.tuning
    own = OWN_TAGS if tuning is None or tuning.is_merge else ("hubmerge",)
    tuned = () if tuning is None else ("dpo", "trl")
    return [*own, *tuned, *facts.tags, *(tag for tag in CARRIED_TAGS if tag in inherited)]


def _distinct(items: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(item for item in items if item is not None))
