"""A plan in numbers: what it reads, writes and needs, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hubmerge.card.facts import LicenceDecision
from hubmerge.merge.explain import parent_role, tensor_groups
from hubmerge.merge.expr import AddLora, Expr, Load, loads
from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.methods.method import BLOCK_ELEMENTS
from hubmerge.merge.plan import Plan
from hubmerge.merge.stream import StreamOptions
from hubmerge.weights.checkpoint import Checkpoint

PROCESS_BYTES = 300_000_000
"""Python with torch and the Hub client, before any tensor: resident size measured with torch 2.13 on Linux."""

TRANSFORMERS_BYTES = 300_000_000
"""What transformers adds to the process once a model's classes are imported."""

BLOCK_BYTES = 8 * BLOCK_ELEMENTS
"""A block of one operand as stored and in fp32, with room for what a method makes of it."""


FP32_BYTES = 4


def plan_summary(
    plan: Plan, checkpoints: Sequence[Checkpoint], options: StreamOptions, licence: LicenceDecision
) -> dict[str, Any]:
    """Returns what `hubmerge plan --json` prints."""
    return {
        "fingerprint": fingerprint(plan),
        "method": plan.recipe.method,
        "seed": plan.recipe.seed,
        "parents": [
            {
                "model": str(parent.ref),
                "sha": parent.sha,
                "role": parent_role(plan.recipe, parent.ref),
                "read_bytes": parent.read_bytes,
                "stored_bytes": parent.stored_bytes,
            }
            for parent in plan.parents
        ],
        "tensors": [asdict(group) for group in tensor_groups(plan)],
        "shards": [
            {"filename": shard.filename, "tensors": len(shard.tensors), "size_bytes": shard.size_bytes}
            for shard in plan.shards
        ],
        "layers": plan.layer_count,
        "modules": [
            {"name": made.module.name, "method": made.method, "layers": len(made.layers), "tensors": made.tensors}
            for made in plan.modules
        ],
        "parameters": plan.parameter_count,
        "read_bytes": plan.read_bytes,
        "write_bytes": plan.write_bytes,
        "disk_bytes": plan.disk_bytes,
        "memory_bytes": memory_bytes(plan, checkpoints, options),
        "license": licence.license,
        "license_name": licence.name,
        "license_outcome": licence.outcome.name.lower(),
        "license_reasons": list(licence.reasons),
        "license_notices": list(licence.notices),
        "notes": list(plan.notes),
    }


def memory_bytes(plan: Plan, checkpoints: Sequence[Checkpoint], options: StreamOptions) -> int:
    """Returns an estimate of a merge's peak memory: the process, what is read ahead, and blocks in work."""
    is_remote = {
        (number, path): checkpoint.files.local_path(path) is None
        for number, checkpoint in enumerate(checkpoints)
        for path in dict.fromkeys(source.file for source in checkpoint.tensors.values())
    }
    remote = [sum(_remote_sizes(tensor.expr, is_remote)) for tensor in plan.tensors]
    read_ahead = max(max(remote, default=0), min(sum(remote), options.read_ahead_bytes))
    operands = max((len(loads(tensor.expr)) for tensor in plan.tensors), default=0)
    factors = max((_factor_bytes(tensor.expr) for tensor in plan.tensors), default=0)
    streaming = read_ahead + options.threads * ((operands + 2) * BLOCK_BYTES + factors)
    return PROCESS_BYTES + max(streaming, _routing_bytes(plan, options))


def _routing_bytes(plan: Plan, options: StreamOptions) -> int:
    """Returns what prompts need that are run before the weights are streamed: a layer in fp32, and transformers."""
    if plan.routing is None or not plan.routing.layers:
        return 0
    read_ahead = min(options.read_ahead_bytes, plan.read_bytes)
    return TRANSFORMERS_BYTES + read_ahead + FP32_BYTES * plan.routing.layer_elements


def _factor_bytes(expr: Expr) -> int:
    """Returns the size of the adapters' matrices of one tensor in fp32: they are held whole."""
    if isinstance(expr, Load):
        return 0
    own = FP32_BYTES * (expr.a.tensor.elements + expr.b.tensor.elements) if isinstance(expr, AddLora) else 0
    return own + sum(map(_factor_bytes, expr.inputs))


def _remote_sizes(expr: Expr, is_remote: Mapping[tuple[int, str], bool]) -> Iterator[int]:
    return (load.tensor.size_bytes for load in loads(expr) if is_remote[load.parent, load.file])
