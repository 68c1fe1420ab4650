"""Loads a recipe from a file, from text or from plain Python data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from hubmerge.errors import RecipeError
from hubmerge.merge.recipe.fields import Remarks, mapping
from hubmerge.merge.recipe.model import Recipe
from hubmerge.merge.recipe.reader import RecipeReader
from hubmerge.merge.recipe.references import Documents
from hubmerge.merge.recipe.yaml_tree import MAX_CHARACTERS, Item, documents

_MAX_BYTES = 4 * MAX_CHARACTERS


def load_recipe(source: str | Path | Mapping[str, Any], *, lenient: bool = False) -> Recipe:
    """Returns a recipe with everything that can be said about it before its models are known.

    A file with several documents is a tree of merges: a document stands for a model wherever its `name` is written, and
    the one that no other refers to is the result.

    Args:
        source: A path, the text itself (a string that has more than one line or a `: `), or the same as plain data.
        lenient: Whether unknown keys are warnings.

    Raises:
        RecipeError: It is no recipe; the message begins with the path and line of the fault.
    """
    if isinstance(source, Mapping):
        return _parsed(_dumped(source), lenient=lenient, with_lines=False)
    is_text = isinstance(source, str) and ("\n" in source or ": " in source or not source.strip())
    return _parsed(str(source) if is_text else _read(Path(source)), lenient=lenient, with_lines=True)


def _parsed(text: str, *, lenient: bool, with_lines: bool) -> Recipe:
    text = text.removeprefix("\ufeff")
    items = documents(text, with_lines=with_lines)
    if not items:
        raise RecipeError("the recipe is empty")
    for item in items:
        mapping(item)
    remarks = Remarks(lenient=lenient)
    reader = RecipeReader(items, text=text, remarks=remarks)
    root = _root(items, reader.documents, remarks)
    return replace(root, warnings=tuple(remarks.warnings))


def _root(items: Sequence[Item], documents: Documents, remarks: Remarks) -> Recipe:
    """Reads every document and returns the one that is the result."""
    names = [documents.name_of(item) for item in items]
    recipes = [documents.top(item) for item in items]
    ends = [index for index, name in enumerate(names) if name not in documents.referenced]
    last = len(items) - 1
    if len(ends) > 1 and last not in ends:
        listed = " and ".join(str(names[index] or items[index].where) for index in ends)
        problem = f"other merges need this last one, and none needs {listed}; put the result last"
        raise RecipeError(f"{items[last].where}: {problem}")
    result = last if last in ends else ends[0]
    for index in ends:
        if index != result:
            remarks.warn(items[index], "no other merge of the file needs this one; it is not made")
    return recipes[result]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise RecipeError(f"{path} is too large for a recipe")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path} is not UTF-8 text (line {line})", hint="Save it as UTF-8.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RecipeError(f"cannot read the recipe {str(path)[:200]}: {reason}") from None


def _dumped(source: Mapping[str, Any]) -> str:
    try:
        return yaml.safe_dump(dict(source), sort_keys=False, allow_unicode=True)
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error.args[0]) if error.args else "it refers to itself"
        raise RecipeError(f"the recipe holds something that YAML cannot say: {reason}") from None
