"""Merge language models from Hub to Hub: plan, stream, publish.

Example:
    import hubmerge

    plan = hubmerge.build_plan("recipe.yml")
    hubmerge.merge_to_folder("recipe.yml", "merged-7b")
    hubmerge.merge_and_push("recipe.yml", "me/merged-7b")
    hubmerge.verify_merge("me/merged-7b")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubmerge.errors import HubmergeError
from hubmerge.version import __version__

if TYPE_CHECKING:
    from hubmerge.extract.plan import ExtractOptions
    from hubmerge.extract.run import extract_lora
    from hubmerge.merge.licensing import LicenceChoice
    from hubmerge.merge.options import MergeOptions
    from hubmerge.merge.pipeline import merge_and_push, merge_to_folder
    from hubmerge.merge.pipeline import plan_recipe as build_plan
    from hubmerge.merge.plan import Plan
    from hubmerge.merge.recipe import Recipe, load_recipe
    from hubmerge.merge.stream import StreamOptions
    from hubmerge.publish import Published
    from hubmerge.verify.report import Report, Verdict
    from hubmerge.verify.run import VerifyOptions, verify_merge
    from hubmerge.verify.sample import Sampling

__all__ = [
    "ExtractOptions",
    "HubmergeError",
    "LicenceChoice",
    "MergeOptions",
    "Plan",
    "Published",
    "Recipe",
    "Report",
    "Sampling",
    "StreamOptions",
    "Verdict",
    "VerifyOptions",
    "__version__",
    "build_plan",
    "extract_lora",
    "load_recipe",
    "merge_and_push",
    "merge_to_folder",
    "verify_merge",
]

_HOMES = {
    "ExtractOptions": ("hubmerge.extract.plan", "ExtractOptions"),
    "LicenceChoice": ("hubmerge.merge.licensing", "LicenceChoice"),
    "MergeOptions": ("hubmerge.merge.pipeline", "MergeOptions"),
    "Plan": ("hubmerge.merge.plan", "Plan"),
    "Published": ("hubmerge.publish", "Published"),
    "Recipe": ("hubmerge.merge.recipe", "Recipe"),
    "Report": ("hubmerge.verify.report", "Report"),
    "Sampling": ("hubmerge.verify.sample", "Sampling"),
    "StreamOptions": ("hubmerge.merge.stream", "StreamOptions"),
    "Verdict": ("hubmerge.verify.report", "Verdict"),
    "VerifyOptions": ("hubmerge.verify.run", "VerifyOptions"),
    "build_plan": ("hubmerge.merge.pipeline", "plan_recipe"),
    "extract_lora": ("hubmerge.extract.run", "extract_lora"),
    "load_recipe": ("hubmerge.merge.recipe", "load_recipe"),
    "merge_and_push": ("hubmerge.merge.pipeline", "merge_and_push"),
    "merge_to_folder": ("hubmerge.merge.pipeline", "merge_to_folder"),
    "verify_merge": ("hubmerge.verify.run", "verify_merge"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import hubmerge` and `hubmerge --help` need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hubmerge' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
