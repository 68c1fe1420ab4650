"""A YAML file that begins with `dpo:` → DpoSettings; every fault with its path and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from hubmerge.errors import RecipeError, SourceError, TrainError
from hubmerge.merge.recipe import load_recipe
from hubmerge.merge.recipe.fields import Remarks, did_you_mean, entries, fault, flag, mapping, number, text
from hubmerge.merge.recipe.fields import whole_number as _whole_number
from hubmerge.merge.recipe.model import Recipe
from hubmerge.merge.recipe.reader import RecipeReader
from hubmerge.merge.recipe.yaml_tree import MAX_CHARACTERS, Item, documents
from hubmerge.trainer.settings import DatasetSource, DpoSettings
from hubmerge.weights.reference import ModelRef, is_revision, parse_reference

Read = Callable[[Item], Any]

_RECIPE_SUFFIXES = (".yml", ".yaml")
_DATA_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
_GPU_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:g|gb|gib)", re.IGNORECASE | re.ASCII)


def load_settings(source: str | Path, *, lenient: bool = False) -> DpoSettings:
    """Returns what a `dpo:` file asks for.

    Args:
        source: A path, or the text itself (a string of more than one line).
        lenient: Whether unknown keys of the recipe that it tunes are warnings.

    Raises:
        RecipeError: It cannot be read or is no such file; the message begins with the path and line of the fault.
        TrainError: Its choices contradict each other.
    """
    written = source if isinstance(source, str) and "\n" in source else _read(Path(source))
    found = documents(written.removeprefix("\ufeff"))
    if len(found) != 1 or set(mapping(found[0])) != {"dpo"}:
        raise RecipeError(
            "a file for `hubmerge dpo` has one document with one key, `dpo`",
            hint="Begin it with `dpo:` and write model, datasets and result under that.",
        )
    item = mapping(found[0])["dpo"]
    remarks = Remarks(lenient=lenient)
    readers: dict[str, Read] = {"model": lambda each: _model(each, remarks), "datasets": _datasets}
    settings: DpoSettings = _group(DpoSettings, item, readers)
    return settings


def parse_model(written: str, *, lenient: bool = False) -> ModelRef | Recipe:
    """Returns the model that a command line names: a Hub id, a folder, or the path of a recipe.

    `lenient` is whether unknown keys of the recipe are warnings.

    Raises:
        SourceError: It can be none of these.
        RecipeError: It is a recipe with a fault.
    """
    is_recipe = written.endswith(_RECIPE_SUFFIXES)
    return load_recipe(Path(written), lenient=lenient) if is_recipe else parse_reference(written)


def parse_dataset(written: str) -> DatasetSource:
    """Returns the data set that a command line names: `org/name[@revision]`, or a file.

    Raises:
        TrainError: It can be neither.
    """
    path, at, revision = written.strip().rpartition("@")
    if not at or is_file(written):
        path, revision = written.strip(), ""
    if at and not is_file(written) and not (path and is_revision(revision)):
        raise TrainError(f"`{revision}` is not a revision (a branch, tag or commit) of `{path}`")
    return DatasetSource(path, revision=revision or None)


def is_file(path: str) -> bool:
    """Returns whether a data set is meant as a file of this machine."""
    return path.lower().endswith(_DATA_SUFFIXES)


def gpu_bytes(written: str) -> int:
    """Returns the memory of a GPU that is sold as `24GB`: 24 * 2**30 bytes.

    Raises:
        TrainError: It is no such size.
    """
    found = _GPU_SIZE.fullmatch(written.strip())
    if found is None or float(found[1]) <= 0:
        raise TrainError(f"{written!r} is not the memory of a GPU; write it like 24GB")
    return round(float(found[1]) * 2**30)


def _model(item: Item, remarks: Remarks) -> ModelRef | Recipe:
    if isinstance(item.value, Mapping) and "merge_method" in item.value:
        own_text = yaml.serialize(item.origin)
        return RecipeReader([item], text=own_text, remarks=remarks).documents.top(item)
    try:
        return parse_model(text(item), lenient=remarks.lenient)
    except SourceError as error:
        raise fault(item, str(error)) from None


def _datasets(item: Item) -> tuple[DatasetSource, ...]:
    return tuple(_dataset(each) for each in entries(item)) if isinstance(item.value, tuple) else (_dataset(item),)


def _dataset(item: Item) -> DatasetSource:
    if isinstance(item.value, Mapping):
        source: DatasetSource = _group(DatasetSource, item, {})
        return source
    try:
        return parse_dataset(text(item))
    except TrainError as error:
        raise fault(item, str(error)) from None


def _group(kind: Any, item: Item, readers: Mapping[str, Read]) -> Any:
    """Returns the dataclass whose fields a mapping gives; a field that is a dataclass itself is a mapping in it."""
    known = {_key(each): each for each in fields(kind)}
    found = mapping(item)
    for key, value in found.items():
        if key not in known:
            raise fault(value, f"unknown key{did_you_mean(key, known)}")
    hints = get_type_hints(kind)
    given = {
        known[key].name: _checked(known[key], value, readers.get(key) or _reader(hints[known[key].name], key))
        for key, value in found.items()
        if value.value is not None
    }
    for key, each in known.items():
        if each.name in ("model", "datasets", "path") and each.name not in given:
            raise fault(item, f"`{key}` is missing")
    try:
        return kind(**given)
    except TrainError as error:
        raise fault(item, str(error), hint=error.hint) from None


def _key(each: Field[Any]) -> str:
    return each.name.removesuffix("_bytes")


def _checked(each: Field[Any], item: Item, read: Read) -> Any:
    value, rule = read(item), each.metadata.get("rule")
    if rule is not None and not rule.holds(value):
        raise fault(item, f"must be {rule.words}, not {item.text or item.kind}")
    return value


def _reader(hint: Any, key: str) -> Read:
    """Returns what reads a value of an annotated type."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] if type(None) in get_args(hint) else [hint]
    kind = kinds[0]
    simple: dict[Any, Read] = {str: text, bool: flag, int: _whole_number, float: lambda item: float(number(item))}
    if key == "vram":
        return _gpu_bytes
    if kind in simple:
        return simple[kind]
    if getattr(kind, "__origin__", None) is tuple:
        each = simple[get_args(kind)[0]]
        return lambda item: tuple(each(one) for one in (entries(item) if isinstance(item.value, tuple) else (item,)))
    if hasattr(kind, "__dataclass_fields__"):
        return lambda item: _group(kind, item, {})
    return lambda item: {name: text(value) for name, value in mapping(item).items()}


def _gpu_bytes(item: Item) -> int:
    try:
        return gpu_bytes(text(item))
    except TrainError as error:
        raise fault(item, str(error)) from None


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(4 * MAX_CHARACTERS)
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is not UTF-8 text", hint="Save it as UTF-8.") from None
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from None
