"""What a staging is for, written into it by the run that began it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import yaml

from hubmerge.merge.normalise import normalised_recipe
from hubmerge.merge.plan import Parent, Plan
from hubmerge.publish import PlanNote
from hubmerge.version import __version__


def plan_note(plan: Plan) -> PlanNote:
    """Returns the version, the parents, the recipe in full, the output files and the device of a plan."""
    return PlanNote(
        {
            "hubmerge": __version__,
            "parents": {str(parent.ref): _version(parent) for parent in plan.parents},
            "recipe": _each_once(yaml.safe_load(normalised_recipe(plan)), set()),
            "output": {"files": len(plan.shards), "size_bytes": plan.write_bytes},
            "device": plan.device,
        }
    )


def _each_once(value: Any, met: set[int]) -> Any:
    """Returns a recipe without the repetitions of recipes within it, which JSON cannot share."""
    if isinstance(value, list):
        return [_each_once(entry, met) for entry in value]
    if not isinstance(value, dict):
        return value
    if id(value) in met:
        return "as above"
    met.add(id(value))
    return {key: _each_once(entry, met) for key, entry in value.items()}


def _version(parent: Parent) -> str:
    """Returns the commit; for a folder a digest of its weight files' names, sizes and times."""
    if parent.sha is not None:
        return parent.sha
    return "files " + hashlib.sha256(json.dumps(parent.files).encode()).hexdigest()[:12]
