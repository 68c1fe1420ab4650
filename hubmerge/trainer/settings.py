"""What a preference tuning is to do: every choice, its default and its limits; nothing here touches a model or data."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hubmerge.errors import TrainError
from hubmerge.merge.recipe.model import Recipe
from hubmerge.weights.reference import ModelRef

LOSSES = (
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
)
"""The losses of TRL's DPOConfig.loss_type."""

OPTIMIZER_STATE_BYTES: Mapping[str, float] = {
    "adamw_torch": 8.0,
    "adamw_torch_fused": 8.0,
    "adamw_8bit": 2.03,
    "paged_adamw_8bit": 2.03,
    "paged_adamw_32bit": 8.0,
    "lion_8bit": 1.02,
    "paged_lion_8bit": 1.02,
    "adafactor": 0.0,
    "sgd": 0.0,
}
"""Bytes of state for each trained fp32 parameter. 8-bit states have one fp32 scale for 256 values besides; Adafactor
keeps a row and a column of each matrix, which is next to nothing."""

SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
QUANTISATIONS = ("auto", "none", "nf4")
PRECISIONS = ("bf16", "fp16")
ROUNDINGS = ("nearest", "stochastic")
FOLD_BASES = ("original", "nf4")
PUBLISHED = ("model", "adapter", "both")

PAIRS_PER_STEP = 8
"""Pairs behind one step of the optimiser, as in the published replicas of AlphaMonarch-7B (1 pair, 8 accumulated)."""

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Rule:
    """What values a setting takes: in words, and as a test of a value of the right type."""

    words: str
    holds: Check


def one_of(choices: Collection[str]) -> Rule:
    """Returns the rule of a setting with a few names as values."""
    return Rule("one of " + ", ".join(choices), lambda value: value in choices)


POSITIVE = Rule("a number above 0", lambda value: math.isfinite(value) and value > 0)
FRACTION = Rule("a number from 0 up to, not including, 1", lambda value: 0 <= value < 1)
COUNT = Rule("a whole number of at least 1", lambda value: value >= 1)
SEED = Rule("a whole number from 0 to 2**32 - 1", lambda value: 0 <= value < 2**32)
LOSS_NAMES = Rule("a list of " + ", ".join(LOSSES), lambda value: bool(value) and set(value) <= set(LOSSES))
POSITIVES = Rule("a list of numbers above 0", lambda value: all(math.isfinite(each) and each > 0 for each in value))


def ruled(default: Any, rule: Rule) -> Any:
    """Returns the field of a setting with a rule; `None`, where it is the default, is always allowed."""
    return field(default=default, metadata={"rule": rule})


def check(settings: Any) -> None:
    """Raises TrainError for the first field of a group of settings that breaks its rule."""
    for each in fields(settings):
        rule, value = each.metadata.get("rule"), getattr(settings, each.name)
        if rule is not None and value is not None and not rule.holds(value):
            raise TrainError(f"{each.name} must be {rule.words}, not {value!r}")


@dataclass(frozen=True)
class DatasetSource:
    """A preference data set by name, and which part of it.

    Attributes:
        path: Hub id, or a .jsonl, .json, .parquet or .csv file of this machine.
        revision: Branch, tag or commit of a Hub data set; None is its default branch.
        config: The data set's configuration (subset); None where it has only one.
        split: None is `train` or `train_prefs`, whichever there is.
        weight: How often each of its pairs is used in an epoch: 0.5 is a half of them, 2 is all of them twice.
        columns: Our names (`prompt`, `chosen`, `rejected`, `system`) -> the data set's; empty for those of the preset,
            or for equal names.
        preset: The known data set whose columns it has, a name in `PRESETS`; None goes by its own id.
    """

    path: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    weight: float = ruled(1.0, POSITIVE)
    columns: Mapping[str, str] = field(default_factory=dict)
    preset: str | None = None

    def __post_init__(self) -> None:
        check(self)

    def __str__(self) -> str:
        return self.path if self.revision is None else f"{self.path}@{self.revision}"


@dataclass(frozen=True)
class Result:
    """Where the tuned model goes and how it is made.

    Attributes:
        push_to: Repo of the Hub.
        folder: Local folder, in place of a repo.
        publish: The whole model, the adapter alone, or both (the adapter then lies under `adapter/`).
        round: How the folded weights are brought to the output dtype.
        fold_base: What the adapter is added to: the weights themselves, or what NF4 made of them, which is what the
            adapter saw when it was trained on quantised weights.
    """

    push_to: str | None = None
    revision: str | None = None
    private: bool = False
    create_pr: bool = False
    folder: str | None = None
    publish: str = ruled("both", one_of(PUBLISHED))
    round: str = ruled("nearest", one_of(ROUNDINGS))
    fold_base: str = ruled("original", one_of(FOLD_BASES))

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Loss:
    """What is minimised.

    Attributes:
        types: Names in `LOSSES`; several are added up.
        weights: One for each of `types`; empty for all ones.
        beta: How strongly the policy is held to the reference; DPO's own 0.1 is also that of the Monarch family.
        label_smoothing: Share of pairs that are taken to be labelled the wrong way round.
    """

    types: tuple[str, ...] = ruled(("sigmoid",), LOSS_NAMES)
    weights: tuple[float, ...] = ruled((), POSITIVES)
    beta: float = ruled(0.1, POSITIVE)
    label_smoothing: float = ruled(0.0, Rule("a number from 0 up to, not including, 0.5", lambda v: 0 <= v < 0.5))

    def __post_init__(self) -> None:
        check(self)
        if self.weights and len(self.weights) != len(self.types):
            raise TrainError(f"weights has {len(self.weights)} numbers for the {len(self.types)} losses of types")


@dataclass(frozen=True)
class Training:
    """How it is minimised.

    Attributes:
        learning_rate: 5e-6, that of zephyr-7b-dpo-qlora. Around it lie NeuralHermes-2.5 (5e-5, 200 steps) and the
            published replicas of AlphaMonarch-7B (5e-7, 1080 steps); the latter's changes are so small that bf16
            rounds a large part of them away.
        warmup: Share of the steps in which the learning rate rises.
        max_steps: None for as many as the epochs have.
        batch_size: Pairs on the GPU at a time; None for what the budget picks.
        grad_accumulation: Batches behind one step; None for `PAIRS_PER_STEP` pairs.
        max_length: Tokens of prompt and answer, beyond which an answer is cut; None for as long as the data needs and
            the memory allows.
        optimizer: A name in `OPTIMIZER_STATE_BYTES`.
        precision: Of the arithmetic; the adapter's own weights are fp32 always.
        save_steps: Steps between two checkpoints; None for ten in all.
        report_to: `none`, or what TRL may report to (wandb, tensorboard, ...).
    """

    learning_rate: float = ruled(5e-6, POSITIVE)
    schedule: str = ruled("cosine", one_of(SCHEDULES))
    warmup: float = ruled(0.1, FRACTION)
    epochs: float = ruled(1.0, POSITIVE)
    max_steps: int | None = ruled(None, COUNT)
    batch_size: int | None = ruled(None, COUNT)
    grad_accumulation: int | None = ruled(None, COUNT)
    max_length: int | None = ruled(None, Rule("a whole number of at least 16", lambda value: value >= 16))
    optimizer: str = ruled("adamw_8bit", one_of(OPTIMIZER_STATE_BYTES))
    precision: str = ruled("bf16", one_of(PRECISIONS))
    max_grad_norm: float = ruled(1.0, POSITIVE)
    seed: int = ruled(0, SEED)
    save_steps: int | None = ruled(None, COUNT)
    report_to: str = "none"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class LoraShape:
    """The adapter that is trained.

    Attributes:
        alpha: The update is scaled by alpha / r.
        dropout: Of the adapter's input. TRL switches dropout off in DPO, so anything but 0 has no effect there.
        targets: Ends of module names, or `all-linear`: every linear layer but the output's.
    """

    r: int = ruled(16, COUNT)
    alpha: float = ruled(16.0, POSITIVE)
    dropout: float = ruled(0.0, FRACTION)
    targets: tuple[str, ...] = ("all-linear",)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Memory:
    """What the training may use.

    Attributes:
        quant: How the frozen weights are held; `auto` is bf16 where that fits, else NF4 with double quantisation.
        vram_bytes: Memory of the GPU; None for that of the one found, or 24 GB where there is none.
    """

    quant: str = ruled("auto", one_of(QUANTISATIONS))
    vram_bytes: int | None = ruled(None, COUNT)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Evaluation:
    """How the result is judged.

    Attributes:
        holdout: Share of the pairs kept from training, chosen by their content.
        max_pairs: Most pairs that are held out.
        tasks: Of lm-evaluation-harness, run on the model before and after.
    """

    holdout: float = ruled(0.05, FRACTION)
    max_pairs: int = ruled(500, COUNT)
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class DpoSettings:
    """A whole preference tuning: the model or the merge it begins with, the data, and every choice.

    Attributes:
        model: A checkpoint without adapter, or the recipe of a merge.
        datasets: At least one; several are interleaved evenly.
    """

    model: ModelRef | Recipe
    datasets: tuple[DatasetSource, ...]
    result: Result = field(default_factory=Result)
    loss: Loss = field(default_factory=Loss)
    training: Training = field(default_factory=Training)
    lora: LoraShape = field(default_factory=LoraShape)
    memory: Memory = field(default_factory=Memory)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        if not self.datasets:
            raise TrainError("preference tuning needs a data set", hint="Name one: --dataset ORG/NAME or FILE.jsonl.")
        if isinstance(self.model, ModelRef) and self.model.adapter is not None:
            raise TrainError(
                f"{self.model} is a model with an adapter, which is not trained as it stands",
                hint="Give a recipe in its place: merge_method: passthrough with that model as its only one.",
            )
