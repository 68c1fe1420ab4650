"""The recipe that a merge publishes, read for its names only: it may be broken, old, or of another tool."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hubmerge.card.front_matter import printable
from hubmerge.errors import RecipeError
from hubmerge.lineage.code_blocks import parts
from hubmerge.merge.recipe.yaml_tree import Item, documents

CONFIG_FILE = "mergekit_config.yml"

_YAML = (("yaml", "yml"), ("",))
"""Languages of code blocks, in the order in which they are looked through."""
_RECIPE_KEY = re.compile(r"^[ \t]*(?:merge_method|experts)[ \t]*:", re.M)
_ENTRY = re.compile(r"""^[ \t]*(?:-[ \t]*)?(model|base_model|merge_method)[ \t]*:[ \t]*["']?([^\s"'#]+)""", re.M)
_LISTS = ("models", "slices", "sources", "experts")


@dataclass(frozen=True)
class RecipeNames:
    """What a recipe merges.

    Attributes:
        method: None where it does not say.
        models: References as they are written, each once, the base models among them.
        bases: Those that are base models.
        is_broken: Whether it is no YAML, and was read line by line.
    """

    method: str | None
    models: tuple[str, ...]
    bases: tuple[str, ...]
    is_broken: bool = False


def fenced_recipe(body: str) -> str | None:
    """Returns the first code block of a card that is a recipe, those called YAML first, its indentation taken away."""
    blocks = (part.text for languages in _YAML for part in parts(body) if part.language in languages)
    return next((f"{text}\n" for text in blocks if _RECIPE_KEY.search(text)), None)


def recipe_names(text: str) -> RecipeNames:
    """Returns the models of a recipe, all documents of a tree of merges together."""
    try:
        items = [item for item in documents(text) if isinstance(item.value, Mapping)]
    except RecipeError:
        return _names_by_line(text)
    own = {_text(item, "name") for item in items}
    found = [(name, is_base) for item in items for name, is_base in _references(item) if name not in own]
    methods = [method for item in items if (method := _text(item, "merge_method"))]
    is_moe = any("experts" in item.value for item in items if isinstance(item.value, Mapping))
    method = methods[-1] if methods else "mixture of experts" if is_moe else None
    return RecipeNames(method, _distinct(name for name, _ in found), _distinct(name for name, base in found if base))


def _names_by_line(text: str) -> RecipeNames:
    found = _ENTRY.findall(text)
    method = next((value for key, value in found if key == "merge_method"), None)
    models = _distinct(value for key, value in found if key != "merge_method")
    bases = _distinct(value for key, value in found if key == "base_model")
    return RecipeNames(method, models, bases, is_broken=True)


def _references(item: Item) -> Iterator[tuple[str, bool]]:
    """Yields every model below an item, and whether it is a base model."""
    if not isinstance(item.value, Mapping):
        return
    for key, value in item.value.items():
        if key in ("model", "source_model", "base_model"):
            yield from _reference(value, is_base=key == "base_model")
        elif key in _LISTS and isinstance(value.value, tuple):
            for entry in value.value:
                yield from _references(entry)
        elif key == "modules" and isinstance(value.value, Mapping):
            for module in value.value.values():
                yield from _references(module)


def _reference(item: Item, *, is_base: bool) -> Iterator[tuple[str, bool]]:
    """Yields what stands in a model's place: a name, a mapping that holds one, or a whole recipe."""
    if isinstance(item.value, Mapping) and "merge_method" in item.value:
        yield from _references(item)
    elif isinstance(item.value, Mapping):
        path, revision = _text(item, "path"), _text(item, "revision")
        if path:
            yield f"{path}@{revision}" if revision else path, is_base
        for key in ("model", "lora"):
            if key in item.value:
                yield from _reference(item.value[key], is_base=is_base)
    elif item.text.strip():
        yield item.text.strip(), is_base


def _text(item: Item, key: str) -> str | None:
    value = item.value.get(key) if isinstance(item.value, Mapping) else None
    return printable(value.text).strip() or None if value is not None else None


def _distinct(items: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))
