"""A plan in numbers: what it reads, writes and needs, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hubmerge.card.facts import LicenceDecision
from hubmerge.merge.explain import parent_role, tensor_groups
from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.memory import memory_bytes
from hubmerge.merge.plan import Plan
from hubmerge.merge.stream import StreamOptions
from hubmerge.weights.checkpoint import Checkpoint


def plan_summary(
    plan: Plan, checkpoints: Sequence[Checkpoint], options: StreamOptions, licence: LicenceDecision
) -> dict[str, Any]:
    """Returns what `hubmerge plan --json` prints."""
    return {
        "fingerprint": fingerprint(plan),
        "method": plan.recipe.method,
        "seed": plan.recipe.seed,
        "device": plan.device,
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
