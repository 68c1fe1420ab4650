"""Benchmarks of lm-evaluation-harness on the model before and after, where somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hubmerge.card.facts import Benchmark
from hubmerge.errors import TrainError
from hubmerge.trainer.load import Weights
from hubmerge.weights.checkpoint import DEFAULT_BRANCH


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
    untuned = {"pretrained": before.path, "revision": before.revision or DEFAULT_BRANCH}
    tuned = {**untuned, "peft": str(adapter)} if after is None else {"pretrained": str(after)}
    first, second = (_evaluated(tasks, arguments) for arguments in (untuned, tuned))
    return {task: {"before": first.get(task), "after": second.get(task)} for task in tasks}


def benchmarks(tasks: Mapping[str, Any]) -> Iterator[Benchmark]:
    """Yields the numbers of `run_tasks` as a card shows them: `acc` rather than `acc,none`, with standard errors."""
    for task, results in tasks.items():
        before, after = (results[when] or {} for when in ("before", "after"))
        for key, value in after.items():
            metric = key.partition(",")[0]
            if isinstance(value, int | float) and not metric.endswith("_stderr"):
                yield Benchmark(task=task, metric=metric, before=_shown(before, key), after=_shown(after, key))


def _shown(results: Mapping[str, Any], key: str) -> str:
    metric, comma, kind = key.partition(",")
    value, error = results.get(key), results.get(f"{metric}_stderr{comma}{kind}")
    if not isinstance(value, int | float):
        return "not measured"
    return f"{value:.4g} ± {error:.2g}" if isinstance(error, float) else f"{value:.4g}"


def _evaluated(tasks: Sequence[str], arguments: Mapping[str, str]) -> Mapping[str, Any]:
    from importlib import import_module

    harness = import_module("lm_eval")
    found = harness.simple_evaluate(model="hf", model_args={**arguments, "dtype": "bfloat16"}, tasks=list(tasks))
    results: Mapping[str, Any] = found["results"]
    return results
