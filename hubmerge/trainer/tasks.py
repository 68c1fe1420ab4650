"""Benchmarks of lm-evaluation-harness on the model before and after, where somebody asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hubmerge.errors import TrainError
from hubmerge.trainer.load import Weights


def check_tasks(tasks: Sequence[str]) -> None:
    """Raises TrainError before anything else if benchmarks are wanted that cannot be run."""
    if tasks and find_spec("lm_eval") is None:
        raise TrainError(
            f"evaluating on {', '.join(tasks)} needs lm-evaluation-harness",
            hint="Install it: pip install 'hubmerge[eval]', or leave out --eval.",
        )


def run_tasks(tasks: Sequence[str], *, before: Weights, after: Path | None, adapter: Path) -> Mapping[str, Any]:
    """Returns the results of each task for both models: {task: {before: {...}, after: {...}}}.

    Args:
        tasks: Names of lm-evaluation-harness.
        before: The untuned weights.
        after: The folded model; None where the adapter alone is published.
        adapter: Laid on the untuned weights in that case.
    """
    if not tasks:
        return {}
    untuned = {"pretrained": before.path, "revision": before.revision or "main"}
    tuned = {**untuned, "peft": str(adapter)} if after is None else {"pretrained": str(after)}
    first, second = (_evaluated(tasks, arguments) for arguments in (untuned, tuned))
    return {task: {"before": first.get(task), "after": second.get(task)} for task in tasks}


def _evaluated(tasks: Sequence[str], arguments: Mapping[str, str]) -> Mapping[str, Any]:
    from importlib import import_module

    harness = import_module("lm_eval")
    found = harness.simple_evaluate(model="hf", model_args={**arguments, "dtype": "bfloat16"}, tasks=list(tasks))
    results: Mapping[str, Any] = found["results"]
    return results
