"""Everything that a run found out, for its card and for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hubmerge.card.facts import Metric, PreferenceData, TuningFacts
from hubmerge.card.front_matter import texts
from hubmerge.merge.pipeline import OpenMerge
from hubmerge.trainer.plan import DpoPlan
from hubmerge.trainer.proof import Metrics, Proof
from hubmerge.trainer.settings import DpoSettings
from hubmerge.trainer.survival import Survival
from hubmerge.trainer.tasks import benchmarks
from hubmerge.trainer.train import ADAPTER_FILES, Trained
from hubmerge.weights.reference import is_hub_id
from hubmerge.weights.shards import hash_file

ADAPTER_FOLDER = "adapter"
CURVES_FILE = "dpo-training.png"


@dataclass(frozen=True)
class Story:
    """A whole run.

    Attributes:
        is_merge: Whether a recipe made the untuned model.
        proof: None where nothing was held out.
        survival: None where the adapter alone is published.
        curves: A PNG; None without matplotlib.
        tasks: Results of lm-evaluation-harness before and after, by task.
    """

    settings: DpoSettings
    is_merge: bool
    data: tuple[PreferenceData, ...]
    trained: Trained
    proof: Proof | None
    survival: Survival | None
    curves: bytes | None
    tasks: Mapping[str, Any]

    def as_data(self) -> dict[str, Any]:
        """Returns it as JSON can say it, which has no infinity: what follows from too few pairs is None."""
        settings = {name: asdict(getattr(self.settings, name)) for name in ("loss", "training", "lora", "evaluation")}
        told = {
            "datasets": [asdict(each) for each in self.data],
            **settings,
            "quant": self.settings.memory.quant,
            "round": self.settings.result.round,
            "fold_base": self.settings.result.fold_base,
            "steps": self.trained.steps,
            "seconds": self.trained.seconds,
            "hardware": self.trained.hardware,
            "peak_bytes": self.trained.peak_bytes,
            "warnings": list(self.trained.warnings),
            "proof": None if self.proof is None else {**asdict(self.proof), "kept": self.proof.kept},
            "delta_survival": None if self.survival is None else asdict(self.survival),
            "tasks": dict(self.tasks),
        }
        return {key: _finite(value) for key, value in told.items()}


def preference_data(plan: DpoPlan) -> tuple[PreferenceData, ...]:
    """Returns what the card says of each data set."""
    return tuple(
        PreferenceData(
            name=Path(each.source.path).name if each.is_local else each.source.path,
            is_local=each.is_local,
            sha=each.sha,
            split=each.split,
            licence=each.licence,
            pairs="all" if each.source.weight == 1 else f"weight {each.source.weight:g}",
            notes=sample.notes,
        )
        for sample in plan.samples
        for each in (sample.opened,)
    )


def tuning_facts(
    story: Story, merge: OpenMerge, adapter: Path, *, adapter_path: str | None, is_adapter: bool
) -> TuningFacts:
    """Returns what the card says of a run."""
    trained = story.trained
    return TuningFacts(
        base_models=tuple(_base_models(merge, adapter)),
        is_merge=story.is_merge,
        is_adapter=is_adapter,
        data=story.data,
        held_out=0 if story.proof is None else story.proof.policy.pairs,
        settings=tuple(_settings(story.settings)),
        work=_work(story),
        curves=CURVES_FILE if story.curves else None,
        metrics=() if story.proof is None else tuple(_metrics(story.proof)),
        survival=() if story.survival is None else tuple(survival_sentences(story.survival)),
        adapter_sha256=adapter_sha256(adapter),
        adapter_path=adapter_path,
        benchmarks=tuple(benchmarks(story.tasks)),
        warnings=trained.warnings,
    )


@cache
def adapter_sha256(adapter: Path) -> str:
    """Returns the SHA-256 of an adapter's weights; read once, as a finished adapter does not change."""
    return hash_file(adapter / ADAPTER_FILES[0])


def survival_sentences(survival: Survival) -> Iterator[str]:
    """Yields what is left of the change in the stored weights."""
    yield (
        f"Of the change, which is {survival.relative_size:.2g} of the weights, {survival.overall:.1%} is left after "
        "rounding (its projection on the wanted change)"
    )
    worst = sorted(survival.by_role.items(), key=lambda item: item[1])
    if worst:
        yield f"By place: {', '.join(f'{role} {share:.1%}' for role, share in worst)}"


def proof_sentence(proof: Proof) -> str:
    """Returns what was measured, in one line."""
    return (
        f"held-out reward accuracy {proof.result.accuracy:.1%} "
        f"({proof.result.accuracy_low:.1%} to {proof.result.accuracy_high:.1%}), margin {proof.result.margin:.3g} "
        f"({proof.kept:.1%} of what was trained)"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _base_models(merge: OpenMerge, adapter: Path) -> Iterator[str]:
    """Yields the Hub ids that the tuned model comes from; of a local folder, those that its card names."""
    for parent, checkpoint in zip(merge.plan.parents, merge.checkpoints, strict=True):
        if parent.ref.path == str(adapter.resolve()):
            continue
        if not parent.ref.is_local:
            yield parent.ref.path
        else:
            yield from (name for name in texts(checkpoint.card.get("base_model")) if is_hub_id(name))


def _work(story: Story) -> str:
    trained, lora = story.trained, story.settings.lora
    weights = "weights in NF4" if story.settings.memory.quant == "nf4" else "weights in bf16"
    return (
        f"Direct preference optimisation ({', '.join(story.settings.loss.types)} loss) of a LoRA adapter of rank "
        f"{lora.r} on {weights}: {trained.steps:,} steps over {trained.pairs:,} pairs on {trained.hardware} in "
        f"{duration(trained.seconds)}. The adapter was added in fp32 to the "
        + ("unrounded merge" if story.is_merge else "full weights")
        + f", which were then rounded once ({story.settings.result.round})."
        + (" What it was added to is what NF4 left of them." if story.settings.result.fold_base == "nf4" else "")
    )


def duration(seconds: float) -> str:
    """Returns a time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _settings(settings: DpoSettings) -> Iterator[tuple[str, str]]:
    for group in ("loss", "training", "lora"):
        for name, value in asdict(getattr(settings, group)).items():
            if value is not None and value != ():
                yield name, ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    yield "quantisation", settings.memory.quant


def _metrics(proof: Proof) -> Iterator[Metric]:
    policy, result = proof.policy, proof.result
    yield Metric(
        id="reward_accuracy",
        title="Reward accuracy",
        policy=_interval(policy),
        result=_interval(result),
        value=result.accuracy,
    )
    yield _metric("reward_margin", "Margin of the rewards", policy.margin, result.margin)
    yield _metric(
        "length_controlled_reward_accuracy",
        "Reward accuracy, answers of either order of length alike",
        policy.length_controlled_accuracy,
        result.length_controlled_accuracy,
    )
    yield _metric(
        "chosen_log_ratio", "Log-ratio of chosen answers, nats", policy.chosen_log_ratio, result.chosen_log_ratio
    )
    if policy.kl is not None and result.kl is not None:
        yield _metric("kl", f"KL to the model before, nats a token ({result.kl_tokens:,} tokens)", policy.kl, result.kl)
    yield Metric(
        id="preference_accuracy",
        title=f"Chosen answer more probable (before: {proof.base_accuracy:.1%})",
        policy=f"{proof.policy_accuracy:.1%}",
        result=f"{proof.result_accuracy:.1%}",
        value=proof.result_accuracy,
    )


def _metric(name: str, title: str, policy: float, result: float) -> Metric:
    return Metric(id=name, title=title, policy=f"{policy:.4g}", result=f"{result:.4g}", value=result)


def _interval(metrics: Metrics) -> str:
    return f"{metrics.accuracy:.1%} ({metrics.accuracy_low:.1%} to {metrics.accuracy_high:.1%})"
