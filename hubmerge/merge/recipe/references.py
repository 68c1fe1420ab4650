"""Names of models in a recipe → checkpoints, other documents of the file, or recipes written in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hubmerge.errors import SourceError
from hubmerge.merge.recipe.fields import Remarks, did_you_mean, fault, text
from hubmerge.merge.recipe.language import check_keys
from hubmerge.merge.recipe.model import Recipe, Source
from hubmerge.merge.recipe.yaml_tree import Item
from hubmerge.weights.reference import ModelRef, parse_reference

ReadRecipe = Callable[[Item], Recipe]

_REFERENCE_KEYS = ("model", "lora", "path", "revision")


class Documents:
    """The documents of a file by name, read when something refers to them, and each only once.

    Attributes:
        referenced: Names that some document refers to.
    """

    def __init__(self, items: list[Item], read: ReadRecipe) -> None:
        self._by_name = _by_name(items)
        self._count = len(items)
        self._read = read
        self._done: dict[int, Recipe] = {}
        self._open: list[str] = []
        self.referenced: set[str] = set()

    def name_of(self, document: Item) -> str | None:
        """Returns what other documents may call it."""
        return next((name for name, item in self._by_name.items() if item is document), None)

    def find(self, item: Item, remarks: Remarks) -> Source:
        """Returns what a recipe puts in a model's place."""
        if isinstance(item.value, Mapping):
            is_recipe = "merge_method" in item.value or "experts" in item.value
            return self._recipe(item) if is_recipe else _from_mapping(item, remarks)
        name = text(item)
        if name in self._by_name:
            return self._document(name, item)
        self._refuse_almost(name, item)
        return _reference(name, item, remarks)

    def top(self, document: Item) -> Recipe:
        """Returns the recipe of a whole document."""
        self._open.append(self.name_of(document) or "")
        try:
            return self._recipe(document)
        finally:
            self._open.pop()

    def _document(self, name: str, item: Item) -> Recipe:
        if name in self._open:
            circle = " → ".join((*self._open[self._open.index(name) :], name))
            raise fault(item, f"the merges refer to each other in a circle: {circle}")
        self.referenced.add(name)
        return self.top(self._by_name[name])

    def _recipe(self, item: Item) -> Recipe:
        """Returns the recipe of a mapping; the same object for every alias of an anchor."""
        key = id(item.origin)
        if key not in self._done:
            self._done[key] = self._read(item)
        return self._done[key]

    def _refuse_almost(self, name: str, item: Item) -> None:
        """Refuses what cannot be meant for the Hub: a document's name with a mistake in it, or with an adapter."""
        stem = name.split("+")[0].split("@")[0].strip()
        if stem in self._by_name:
            raise fault(item, f"{stem} is a merge of this file, which takes no revision and no adapter")
        guess = did_you_mean(name, self._by_name) if self._count > 1 and "/" not in name else ""
        if guess:
            raise fault(item, f"no document is called {name}{guess}")


def _by_name(items: list[Item]) -> dict[str, Item]:
    named: dict[str, Item] = {}
    for item in items:
        assert isinstance(item.value, Mapping)
        name = item.value.get("name")
        if name is None or name.value is None:
            continue
        if text(name) in named:
            raise fault(name, f"another document is called {text(name)} already")
        named[text(name)] = item
    return named


def _from_mapping(item: Item, remarks: Remarks) -> ModelRef:
    return _reference(_plain(item, remarks), item, remarks)


def _plain(item: Item, remarks: Remarks) -> Any:
    """Returns a reference as `parse_reference` takes it."""
    if not isinstance(item.value, Mapping):
        return text(item)
    return {key: _plain(value, remarks) for key, value in check_keys(item, _REFERENCE_KEYS, remarks).items()}


def _reference(written: str | Mapping[str, Any], item: Item, remarks: Remarks) -> ModelRef:
    try:
        found = parse_reference(written)
    except SourceError as error:
        raise fault(item, str(error)) from None
    return _without_folder_revisions(found, item, remarks)


def _without_folder_revisions(ref: ModelRef, item: Item, remarks: Remarks) -> ModelRef:
    """Returns a reference whose folders have no revision: recipes keep it where a folder took a repo's place."""
    adapter = None if ref.adapter is None else _without_folder_revisions(ref.adapter, item, remarks)
    if not ref.is_local or ref.revision is None:
        return replace(ref, adapter=adapter)
    remarks.warn(item, f"{ref.path} is a folder, which has no revision; {ref.revision} is ignored")
    return replace(ref, revision=None, adapter=adapter)
