"""The identity of a plan: equal fingerprints mean equal bytes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hubmerge.merge.expr import AddLora, Dithered, Expr, Gate, Load, Random, RemapRows, Routing, Same
from hubmerge.merge.plan import Parent, Plan
from hubmerge.merge.planned import PlannedTokenizer
from hubmerge.version import __version__


def fingerprint(plan: Plan) -> str:
    """Returns the SHA-256 of everything that decides the merge's bytes, as 64 hexadecimal digits.

    That is: hubmerge's version, the parents' commits (of folders: their files' sizes and times), the tokenizer, every
    expression with its settings and seed, and the layout of the output files.
    """
    digests: dict[int, str] = {}
    description = {
        "hubmerge": __version__,
        "parents": [_parent(parent) for parent in plan.parents],
        "config": plan.config,
        "tokenizer": _tokenizer(plan.tokenizer),
        "shards": [
            {
                "header": hashlib.sha256(shard.header).hexdigest(),
                "tensors": [_expr(tensor.expr, digests) for tensor in shard.tensors],
            }
            for shard in plan.shards
        ],
    }
    return _digest(description)


def _parent(parent: Parent) -> list[Any]:
    return [parent.ref.path, parent.sha, parent.files]


def _tokenizer(tokenizer: PlannedTokenizer) -> list[Any]:
    built = None if tokenizer.built is None else _digest([tokenizer.built.data, tokenizer.built.config])
    return [tokenizer.parents[0], built, tokenizer.chat_template]


def _expr(expr: Expr, digests: dict[int, str]) -> str:
    """Returns the digest of an expression; one that a merge tree uses many times is digested once."""
    if id(expr) not in digests:
        digests[id(expr)] = _digest(_described(expr, digests))
    return digests[id(expr)]


def _described(expr: Expr, digests: dict[int, str]) -> list[Any]:
    if isinstance(expr, Load):
        return ["load", expr.parent, expr.file, expr.tensor.name, expr.tensor.start, expr.tensor.stop]
    if isinstance(expr, Random):
        return ["random", expr.name, expr.shape, expr.seed, expr.kind, expr.scale]
    if isinstance(expr, Gate):
        return ["gate", _routing(expr.routing, digests), expr.layer, expr.first, expr.stop]
    inputs = [_expr(operand, digests) for operand in expr.inputs]
    if isinstance(expr, Same):
        return ["same", inputs]
    if isinstance(expr, AddLora):
        return ["add_lora", inputs, expr.scale, expr.is_transposed]
    if isinstance(expr, Dithered):
        return ["dithered", inputs, expr.name, expr.seed]
    if isinstance(expr, RemapRows):
        return ["rows", inputs, expr.index.digest, expr.shape]
    settings = [dict(expr.settings.shared), [dict(values) for values in expr.settings.inputs]]
    return ["merge", expr.method, expr.name, inputs, expr.has_base, settings, expr.seed, expr.dtype]


def _routing(routing: Routing, digests: dict[int, str]) -> list[Any]:
    layers = [{name: _expr(weight, digests) for name, weight in layer.items()} for layer in routing.layers]
    return [routing.mode, routing.prompts, _expr(routing.embedding, digests), layers, routing.config]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
