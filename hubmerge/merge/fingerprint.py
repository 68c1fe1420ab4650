"""The identity of a plan: equal fingerprints mean equal bytes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

from hubmerge.merge.devices import HOST
from hubmerge.merge.expr import AddLora, Dithered, Expr, Gate, Load, Merge, Random, RemapRows, Routing, Same
from hubmerge.merge.plan import Parent, Plan
from hubmerge.merge.planned import PlannedTokenizer
from hubmerge.version import __version__


def fingerprint(plan: Plan) -> str:
    """Returns the SHA-256 of everything that decides the merge's bytes, as 64 hexadecimal digits.

    That is: hubmerge's version, the parents' commits (of folders: their files' sizes and times), the tokenizer, every
    expression with its settings and seed, the layout of the output files, and the device where it is not the processor.
    """
    expressions = _Expressions(_place)
    description = {
        "hubmerge": __version__,
        "parents": [_parent(parent) for parent in plan.parents],
        "config": plan.config,
        "tokenizer": _tokenizer(plan.tokenizer),
        "shards": [
            {
                "header": hashlib.sha256(shard.header).hexdigest(),
                "tensors": [expressions.digest(tensor.expr) for tensor in shard.tensors],
            }
            for shard in plan.shards
        ],
        **({} if plan.device == HOST else {"device": plan.device}),
    }
    return _digest(description)


def shard_contents(plan: Plan) -> dict[str, str]:
    """Returns for each output file the SHA-256 of everything that decides its bytes, as 64 hexadecimal digits.

    Unlike in `fingerprint`, source tensors count by the files that hold them, not by commits: a parent's new commit
    with the same weights changes nothing. Routers from prompts depend on tokenizers as well, and so on the commits.
    """
    versions = [_versions(parent) for parent in plan.parents]
    commits = None if plan.routing is None else [parent.sha for parent in plan.parents]

    def content(load: Load) -> list[Any]:
        tensor = load.tensor
        return [versions[load.parent][load.file], tensor.start, tensor.stop, tensor.dtype, tensor.shape]

    expressions = _Expressions(content)
    makers = [__version__, importlib.metadata.version("torch"), commits]
    makers += [] if plan.device == HOST else [plan.device]
    return {
        shard.filename: _digest(
            [
                *makers,
                hashlib.sha256(shard.header).hexdigest(),
                [expressions.digest(tensor.expr) for tensor in shard.tensors],
            ]
        )
        for shard in plan.shards
    }


def _versions(parent: Parent) -> dict[str, Any]:
    """Returns what tells each weight file from all others: a hash on the Hub, name, size and time on this disk."""
    return {
        path: version if isinstance(version, str) else [parent.ref.path, path, size, version]
        for path, size, version in parent.files
    }


def _parent(parent: Parent) -> list[Any]:
    return [parent.ref.path, parent.sha, parent.files]


def _tokenizer(tokenizer: PlannedTokenizer) -> list[Any]:
    built = None if tokenizer.built is None else _digest([tokenizer.built.data, tokenizer.built.config])
    return [tokenizer.parents[0], built, tokenizer.chat_template]


class _Expressions:
    """Digests of expressions; one that a merge tree uses many times is digested once.

    Args:
        load: What tells a source tensor from others.
    """

    def __init__(self, load: Callable[[Load], list[Any]]) -> None:
        self._load = load
        self._digests: dict[int, str] = {}

    def digest(self, expr: Expr) -> str:
        if id(expr) not in self._digests:
            self._digests[id(expr)] = _digest(self._described(expr))
        return self._digests[id(expr)]

    def _described(self, expr: Expr) -> list[Any]:
        if isinstance(expr, Load):
            return ["load", *self._load(expr)]
        if isinstance(expr, Random):
            return ["random", expr.name, expr.shape, expr.seed, expr.kind, expr.scale]
        if isinstance(expr, Gate):
            return ["gate", self._routing(expr.routing), expr.layer, expr.first, expr.stop]
        inputs = [self.digest(operand) for operand in expr.inputs]
        if isinstance(expr, Same):
            return ["same", inputs]
        if isinstance(expr, AddLora):
            return ["add_lora", inputs, expr.scale, expr.is_transposed, *_width(expr)]
        if isinstance(expr, Dithered):
            return ["dithered", inputs, expr.name, expr.seed]
        if isinstance(expr, RemapRows):
            return ["rows", inputs, expr.index.digest, expr.shape]
        settings = [dict(expr.settings.shared), [dict(values) for values in expr.settings.inputs]]
        stated = [expr.seed, expr.dtype, *_width(expr)]
        return ["merge", expr.method, expr.name, inputs, expr.has_base, settings, *stated]

    def _routing(self, routing: Routing) -> list[Any]:
        layers = [{name: self.digest(weight) for name, weight in layer.items()} for layer in routing.layers]
        return [routing.mode, routing.prompts, self.digest(routing.embedding), layers, routing.config]


def _width(expr: AddLora | Merge) -> list[str]:
    """Returns what tells fp64 arithmetic that a recipe asks for; nothing for the usual one."""
    return ["fp64"] if expr.is_double else []


def _place(load: Load) -> list[Any]:
    return [load.parent, load.file, load.tensor.name, load.tensor.start, load.tensor.stop]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
