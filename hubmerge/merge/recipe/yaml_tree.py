"""YAML text → a tree of values that know their path and line; what YAML allows and a recipe must not is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import yaml
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from hubmerge.errors import RecipeError
from hubmerge.weights.front_matter import MOST_OPEN_BRACKETS, open_brackets

MAX_CHARACTERS = 1_000_000
"""A recipe of 40 models with a gradient over 80 layers in each has 60 thousand."""
MAX_DEPTH = 100
MAX_ITEMS = 200_000
"""Values after aliases are expanded; nine anchors that each repeat the one before ten times would make a billion."""

MAX_NUMBER_CHARACTERS = 100
"""Longer ones take ever longer to read, and some cannot be written again."""

YamlScalar: TypeAlias = "str | int | float | bool | None"

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_AS_WRITTEN = {f"{_TAG}{name}" for name in ("str", "timestamp", "value")}
_COLLECTIONS = {f"{_TAG}map", f"{_TAG}seq"}
_IDENTIFIER = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True, eq=False)
class Item:
    """A value of the recipe and where it stands.

    Attributes:
        path: `models[1].parameters.weight`; empty for a whole document.
        line: Counted from 1, of the key where there is one; None for a recipe that is no text.
        text: A scalar as it was written, since YAML reads `revision: 0123` as the number 83.
        origin: The same object for every alias of one anchor.
    """

    value: YamlScalar | tuple[Item, ...] | Mapping[str, Item]
    path: str
    line: int | None
    text: str
    origin: object = field(repr=False)

    @property
    def where(self) -> str:
        """Path and line, as messages begin."""
        path = self.path or "recipe"
        return path if self.line is None else f"{path} (line {self.line})"

    def rewritten(self, text: str) -> Item:
        """Returns the item with other text in its place."""
        return replace(self, value=text, text=text)

    def with_entries(self, entries: Mapping[str, Item]) -> Item:
        """Returns the item with other entries in its place."""
        return replace(self, value=entries)

    @property
    def kind(self) -> str:
        """What it is in a reader's words."""
        match self.value:
            case None:
                return "nothing"
            case bool():
                return "true or false"
            case int() | float():
                return "a number"
            case str():
                return "text"
            case tuple():
                return "a list"
            case _:
                return "a mapping"


def documents(text: str, *, with_lines: bool = True) -> list[Item]:
    """Returns the documents of a YAML file, the empty ones left out.

    Raises:
        RecipeError: It is no YAML, has duplicate keys, or is too large, too deep or too often repeated.
    """
    if len(text) > MAX_CHARACTERS:
        raise RecipeError(f"a recipe has at most {MAX_CHARACTERS:,} characters, and this has {len(text):,}")
    if open_brackets(text) > MOST_OPEN_BRACKETS:
        raise _too_deep()
    tree = _Tree(with_lines=with_lines)
    nodes = (node for node in _composed(text) if node.tag != f"{_TAG}null")
    return [tree.item(node, path="", line=node.start_mark.line + 1, depth=0) for node in nodes]


def _composed(text: str) -> list[Node]:
    try:
        return [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError(f"line {line}: not YAML: the character U+{error.character:04X} is not allowed") from None
    except RecursionError:
        raise _too_deep() from None


def _not_yaml(error: yaml.MarkedYAMLError) -> RecipeError:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "it breaks off"
    if r"'\t'" in problem:
        problem = "a tab stands where YAML takes spaces only"
    if "'`'" in problem:
        problem = "the recipe stands in a fence of Markdown; leave out the lines with backticks"
    return RecipeError(f"line {1 if mark is None else mark.line + 1}: not YAML: {problem}")


def _too_deep() -> RecipeError:
    return RecipeError(f"the recipe is nested more than {MAX_DEPTH} levels deep")


@dataclass
class _Tree:
    """Makes items of nodes, and counts them; a recipe that aliases repeat is one item, where it first stands."""

    with_lines: bool
    made: int = 0
    _recipes: dict[int, Item] = field(default_factory=dict)
    _constructor: SafeConstructor = field(default_factory=SafeConstructor)

    def item(self, node: Node, *, path: str, line: int, depth: int) -> Item:
        if id(node) in self._recipes:
            return self._recipes[id(node)]
        self._count()
        if depth > MAX_DEPTH:
            raise _too_deep()
        shown = line if self.with_lines else None
        if isinstance(node, ScalarNode):
            item = Item(self._scalar(node, path, shown), path, shown, node.value, node)
        elif node.tag not in _COLLECTIONS:
            raise _tagged(node, path, shown)
        elif isinstance(node, SequenceNode):
            children = (
                self.item(child, path=f"{path}[{index}]", line=child.start_mark.line + 1, depth=depth + 1)
                for index, child in enumerate(node.value)
            )
            item = Item(tuple(children), path, shown, "", node)
        else:
            assert isinstance(node, MappingNode)
            item = Item(entries := self._entries(node, path, depth), path, shown, "", node)
            if "merge_method" in entries:
                self._recipes[id(node)] = item
        return item

    def _entries(self, node: MappingNode, path: str, depth: int) -> dict[str, Item]:
        entries: dict[str, Item] = {}
        for key, value in self._pairs(node, path):
            below = _join(path, key.value)
            entries[key.value] = self.item(value, path=below, line=key.start_mark.line + 1, depth=depth + 1)
        return entries

    def _pairs(self, node: MappingNode, path: str) -> list[tuple[ScalarNode, Node]]:
        """Returns the entries, those that `<<` adds last."""
        own: dict[str, tuple[ScalarNode, Node]] = {}
        merged: list[tuple[ScalarNode, Node]] = []
        for key, value in node.value:
            line = key.start_mark.line + 1 if self.with_lines else None
            if not isinstance(key, ScalarNode):
                raise _error(path, line, "a key is text, not a list or a mapping")
            if key.tag == _MERGE:
                merged += self._merged(value, path, line)
            elif key.value in own:
                raise _duplicate(path, key, own[key.value][0], with_lines=self.with_lines)
            else:
                own[key.value] = key, value
        added = {key.value: (key, value) for key, value in reversed(merged) if key.value not in own}
        return [*own.values(), *added.values()]

    def _merged(self, node: Node, path: str, line: int | None) -> Iterator[tuple[ScalarNode, Node]]:
        for source in node.value if isinstance(node, SequenceNode) else [node]:
            if not isinstance(source, MappingNode) or any(key.tag == _MERGE for key, _ in source.value):
                raise _error(path, line, "`<<` takes mappings without a `<<` of their own")
            for pair in self._pairs(source, path):
                self._count()
                yield pair

    def _count(self) -> None:
        self.made += 1
        if self.made > MAX_ITEMS:
            raise RecipeError(f"the recipe has more than {MAX_ITEMS:,} values once its aliases are expanded")

    def _scalar(self, node: ScalarNode, path: str, line: int | None) -> YamlScalar:
        name = node.tag.removeprefix(_TAG)
        if node.tag in _AS_WRITTEN:
            return str(node.value)
        if name not in ("int", "float", "bool", "null"):
            raise _tagged(node, path, line)
        if len(node.value) > MAX_NUMBER_CHARACTERS:
            raise _error(path, line, f"`{node.value[:40]}...` is too long for a value of the type {name}")
        try:
            value: YamlScalar = getattr(self._constructor, f"construct_yaml_{name}")(node)
        except (ValueError, KeyError, IndexError):
            raise _error(path, line, f"`{node.value[:40]}` is not a value of the type {name}") from None
        return value


def _join(path: str, key: str) -> str:
    if not _IDENTIFIER.fullmatch(key):
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


def _error(path: str, line: int | None, problem: str) -> RecipeError:
    return RecipeError(f"{Item(None, path, line, '', None).where}: {problem}")


def _tagged(node: Node, path: str, line: int | None) -> RecipeError:
    return _error(path, line, f"the YAML tag {node.tag.replace(_TAG, '!!')} is not allowed in a recipe")


def _duplicate(path: str, key: ScalarNode, first: ScalarNode, *, with_lines: bool) -> RecipeError:
    line = key.start_mark.line + 1 if with_lines else None
    hint = "Write --- between the merges of one file." if key.value == "merge_method" and not path else None
    message = f"the key is on line {first.start_mark.line + 1} already"
    return RecipeError(f"{Item(None, _join(path, key.value), line, '', None).where}: {message}", hint=hint)
