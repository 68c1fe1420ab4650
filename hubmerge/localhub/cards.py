"""The metadata at the top of a README: reading it, judging it, and the tags that follow from it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_REPO_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_LICENSE_NAME = re.compile(r"[a-z0-9.-]+")
_UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises for text, for the 31st of June, and for lists in themselves."""

_RELATIONS = ("adapter", "finetune", "merge", "quantized")


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2, as the Hub does: `language: no` is Norwegian, not false."""


_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0] != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a card's metadata: errors forbid the upload, warnings do not."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def validate(content: str) -> Verdict:
    """Returns the faults in the metadata of a README, in the order of the fields."""
    found = _FRONT_MATTER.match(content)
    if found is None or not found[1].strip():
        return Verdict(warnings=("empty or missing yaml metadata in repo card",))
    try:
        data = _load(found[1])
    except _UNREADABLE as error:
        return Verdict(errors=(f"YAML metadata cannot be parsed: {error}",))
    if not isinstance(data, dict):
        return Verdict(errors=("YAML metadata must be a mapping",))
    return Verdict(errors=tuple(_field_errors(data)))


def metadata(content: str) -> dict[str, Any]:
    """Returns the metadata of a README as JSON types; {} where there is none that can be read."""
    found = _FRONT_MATTER.match(content)
    try:
        data = _load(found[1]) if found else None
        text = json.dumps(data, default=str, skipkeys=True)
    except _UNREADABLE:
        return {}
    value = json.loads(text, parse_constant=lambda _: None)  # JSON knows no NaN
    return value if isinstance(value, dict) else {}


def base_models(card: Mapping[str, Any]) -> list[str]:
    """Returns the well-formed ids under `base_model`, in their order."""
    return [each for each in _as_list(card.get("base_model")) if isinstance(each, str) and _REPO_ID.fullmatch(each)]


def relation(card: Mapping[str, Any], files: Collection[str]) -> str:
    """Returns how a model descends from its base models: as declared, else as the Hub infers it."""
    declared = card.get("base_model_relation")
    if declared in _RELATIONS:
        return str(declared)
    if "adapter_config.json" in files or card.get("library_name") == "peft":
        return "adapter"
    if any(name.endswith(".gguf") for name in files):
        return "quantized"
    return "merge" if len(base_models(card)) > 1 else "finetune"


def tags(card: Mapping[str, Any], config: Mapping[str, Any], files: Collection[str]) -> list[str]:
    """Returns the tags by which the Hub finds a repo, without repeats."""
    parents = base_models(card)
    kind = relation(card, files)
    found = [
        *([card["library_name"]] if "library_name" in card else ["transformers"] if "model_type" in config else []),
        *(["safetensors"] if any(name.endswith(".safetensors") for name in files) else []),
        *([config["model_type"]] if "model_type" in config else []),
        *([card["pipeline_tag"]] if "pipeline_tag" in card else []),
        *_as_list(card.get("tags")),
        *_as_list(card.get("language")),
        *(f"dataset:{each}" for each in _as_list(card.get("datasets"))),
        *(f"base_model:{each}" for each in parents),
        *(f"base_model:{kind}:{each}" for each in parents),
        *(f"license:{each}" for each in _as_list(card.get("license"))),
        "region:us",
    ]
    return list(dict.fromkeys(str(each) for each in found if isinstance(each, str)))


def _field_errors(card: Mapping[str, Any]) -> Iterator[str]:
    for field in ("license", "language", "tags", "datasets"):
        if field in card and not _is_text_or_texts(card[field]):
            yield f'"{field}" must be a string or a list of strings'
    for field in ("library_name", "pipeline_tag", "license_name", "license_link"):
        if field in card and not isinstance(card[field], str):
            yield f'"{field}" must be a string'
    yield from _base_model_errors(card)
    name = card.get("license_name")
    if isinstance(name, str) and not _LICENSE_NAME.fullmatch(name):
        yield '"license_name" must match /^[a-z0-9-.]+$/'


def _base_model_errors(card: Mapping[str, Any]) -> Iterator[str]:
    if "base_model" in card and not _is_text_or_texts(card["base_model"]):
        yield '"base_model" must be a string or a list of strings'
    for each in _as_list(card.get("base_model")):
        if isinstance(each, str) and not _REPO_ID.fullmatch(each):
            yield f'"base_model" with value "{each}" is not valid. Use a model id from https://hf.co/models.'
    if card.get("base_model_relation", "merge") not in _RELATIONS:
        yield f'"base_model_relation" must be one of {", ".join(_RELATIONS)}'


def _is_text_or_texts(value: Any) -> bool:
    return all(isinstance(each, str) for each in _as_list(value)) and value is not None and not isinstance(value, dict)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
