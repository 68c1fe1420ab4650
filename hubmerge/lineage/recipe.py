"""The recipes of an ancestry put together: one file that makes every merge again, down to what is no merge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from hubmerge.errors import RecipeError
from hubmerge.lineage.appearance import Kind, kind_of, made_by
from hubmerge.lineage.graph import Lineage, Node, Relation
from hubmerge.merge.recipe import load_recipe

_MODEL_KEYS = ("model", "base_model")


class _WithoutAliases(yaml.SafeDumper):
    """Writes repeated values out: a reader should not have to look up what an anchor stands for."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def rebuilt_recipe(lineage: Lineage) -> str:
    """Returns a recipe file that makes a model from the ancestors behind all of its merges.

    Each merge whose recipe is published is a document, the deepest first; the last makes the model. What was trained
    rather than merged, and what cannot be read, stays a model to load. Every merge is rounded to the dtype that its
    recipe states, as it was when it was published.

    Raises:
        RecipeError: The model itself publishes no recipe that can be read.
    """
    root = lineage.nodes[lineage.root]
    if not _is_usable(root):
        raise RecipeError(_why_not(root), hint=_nearest(lineage))
    acyclic = lineage.forward
    merges = _merges(acyclic)
    names = _document_names(merges)
    documents = [text for node in reversed(merges) for text in _documents(acyclic, node, names)]
    heading = _heading(acyclic, merges)
    recipe = "---\n".join(documents)
    if not _is_readable(recipe, lenient=False):
        heading += "# Some of its keys are not known here: give --lenient to the command that takes it.\n"
    return heading + recipe


def _merges(lineage: Lineage) -> list[Node]:
    """Returns the merges to write, a child always before its parents."""
    reached = {lineage.root: None}
    waiting = [lineage.root]
    while waiting:
        above = [edge.parent for edge in lineage.parents(waiting.pop(0)) if edge.parent not in reached]
        usable = dict.fromkeys(parent for parent in above if _is_usable(lineage.nodes[parent]))
        reached |= usable
        waiting += usable
    return [lineage.nodes[node_id] for node_id in sorted(reached, key=lineage.generations.__getitem__)]


def _is_usable(node: Node) -> bool:
    if node.relation is not Relation.MERGE or node.recipe is None:
        return False
    return _is_readable(node.recipe, lenient=True)


def _is_readable(recipe: str, *, lenient: bool) -> bool:
    try:
        load_recipe(recipe, lenient=lenient)
    except RecipeError:
        return False
    return True


def _document_names(merges: list[Node]) -> dict[str, str]:
    """Returns what the document of each merge is called: the repo's own name, numbered where two are alike."""
    names: dict[str, str] = {}
    for node in merges:
        short = node.title.rsplit("/", 1)[-1]
        alike = sum(name == short or name.startswith(f"{short}-again-") for name in names.values())
        names[node.id] = f"{short}-again-{alike}" if alike else short
    return names


def _documents(lineage: Lineage, node: Node, names: Mapping[str, str]) -> Iterator[str]:
    """Yields the documents of one published recipe, those that are only inner steps of it with a name of their own."""
    assert node.recipe is not None
    merged = {edge.name: names[edge.parent] for edge in lineage.parents(node.id) if edge.parent in names}
    contents = [item for item in yaml.safe_load_all(node.recipe) if isinstance(item, dict)]
    inner = {str(item["name"]): f"{names[node.id]}.{item['name']}" for item in contents[:-1] if "name" in item}
    for content in contents:
        is_result = content is contents[-1]
        own_name = names[node.id] if is_result else inner.get(str(content.get("name")))
        rest = {key: value for key, value in content.items() if key != "name"}
        written = {"name": own_name, **_renamed(rest, {**merged, **inner})} if own_name else rest
        text = yaml.dump(written, Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True, width=120)
        commit = f" at {node.sha[:7]}" if node.sha else ""
        yield f"# {node.title}{commit}\n{text}" if is_result else text


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Returns plain data with document names where models stand that are made in this file."""
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: names.get(_reference(item), _renamed(item, names)) if key in _MODEL_KEYS else _renamed(item, names)
        for key, item in value.items()
    }


def _reference(value: Any) -> str:
    """Returns a model as text: a name, or `{path, revision}` in the short form."""
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        return f"{value['path']}@{value['revision']}" if value.get("revision") else str(value["path"])
    if isinstance(value, dict) and set(value) == {"model"}:
        return _reference(value["model"])
    return value if isinstance(value, str) else ""


def _heading(lineage: Lineage, merges: list[Node]) -> str:
    written = {node.id for node in merges}
    leaves = dict.fromkeys(edge.parent for node in merges for edge in lineage.parents(node.id))
    unseen = [lineage.nodes[leaf] for leaf in leaves if leaf not in written]
    lost = [node for node in unseen if kind_of(node) is Kind.UNSEEN]
    lines = [f"# {merges[0].title}, made again from the recipes that its ancestors publish: {len(merges)} in all."]
    lines += [f"# {' '.join(node.title.split())} cannot be read: {made_by(node)}." for node in lost]
    return "\n".join(lines) + "\n"


def _why_not(root: Node) -> str:
    if root.recipe is not None:
        return f"the recipe that {root.title} publishes cannot be read"
    return f"{root.title} publishes no recipe ({made_by(root)})"


def _nearest(lineage: Lineage) -> str | None:
    nearest = next((node for node in lineage.nodes.values() if _is_usable(node)), None)
    return f"The nearest ancestor with one: hubmerge lineage {nearest.title} --recipe" if nearest else None
