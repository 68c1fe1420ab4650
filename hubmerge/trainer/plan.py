"""A preference tuning before it starts: what will be trained on which data, in how much memory, for how long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hubmerge.errors import DataError
from hubmerge.trainer.budget import Budget, Calculator, Choice, choose, gigabytes
from hubmerge.trainer.data import Sample, sample
from hubmerge.trainer.data_checks import DataReport, TokenisedPair, check_tokenizer, report, tokenised
from hubmerge.trainer.dataset_source import OpenedDataset, open_dataset
from hubmerge.trainer.gpu import (
    FORWARD_EQUIVALENTS,
    MOST_PARAMETERS_ON_CPU,
    UTILISATION,
    Gpu,
    find_gpu,
    seconds_per_pair,
)
from hubmerge.trainer.load import check_libraries
from hubmerge.trainer.settings import DatasetSource, DpoSettings
from hubmerge.trainer.subject import Subject, open_subject

SHOWN_LENGTHS = (512, 1024, 1536, 2048, 4096, 8192)


@dataclass(frozen=True)
class DpoPlan:
    """Everything that is known before a weight or a whole data set is downloaded.

    Attributes:
        asked: The settings as they were given.
        settings: The same with the commits of the data sets, and what was left open decided.
        samples: By data set.
        report: On the pairs of all samples, or on all pairs, at the length that was chosen.
        table: The budget at other lengths, with the chosen quantisation and batch size.
        seconds_per_pair: An estimate; None for a GPU of unknown speed.
    """

    asked: DpoSettings
    settings: DpoSettings
    subject: Subject
    samples: tuple[Sample, ...]
    report: DataReport
    choice: Choice
    gpu: Gpu
    table: tuple[Budget, ...]
    seconds_per_pair: float | None

    @property
    def opened(self) -> tuple[OpenedDataset, ...]:
        """The data sets at their commits, ready to be loaded."""
        return tuple(each.opened for each in self.samples)

    @property
    def has_chat(self) -> bool:
        """Whether the model has a chat template, so that plain text becomes messages."""
        return bool(self.subject.tokenizer.chat_template)

    def seconds(self, pairs: int) -> float | None:
        """Returns how long training on so many pairs may take."""
        return None if self.seconds_per_pair is None else pairs * self.seconds_per_pair


def make_plan(settings: DpoSettings, *, token: str | bool | None = None) -> DpoPlan:
    """Returns the plan; reads headers, configs, the tokenizer and the first rows of each data set.

    Raises:
        TrainError: Something that tuning needs is not installed.
        SourceError: The model cannot be used.
        DataError: A data set cannot be used, or not with this model.
        BudgetError: The training does not fit the memory.
    """
    check_libraries()
    opened = [open_dataset(source, token=token) for source in settings.datasets]
    subject = open_subject(settings.model, token=token)
    chat = bool(subject.tokenizer.chat_template)
    samples = tuple(sample(each, chat=chat, token=token) for each in opened)
    return _planned(settings, subject, samples, _tokenised(samples, subject.tokenizer))


def with_all_pairs(plan: DpoPlan, pairs: Sequence[TokenisedPair]) -> DpoPlan:
    """Returns the plan made anew from all pairs in place of the samples: the longest may be among the others.

    Raises:
        DataError: No pair is short enough.
        BudgetError: The training does not fit the memory.
    """
    return _planned(plan.asked, plan.subject, plan.samples, pairs)


def _planned(
    asked: DpoSettings, subject: Subject, samples: tuple[Sample, ...], pairs: Sequence[TokenisedPair]
) -> DpoPlan:
    gpu = find_gpu(asked.memory.vram_bytes)
    calculator = Calculator(subject.shape, asked.lora, asked.training.optimizer)
    longest = max(pair.tokens for pair in pairs)
    choice = choose(calculator, asked.training, asked.memory, longest_pair=longest, gpu_bytes=gpu.total_bytes)
    budget = choice.budget
    lengths = sorted({budget.max_length, *(length for length in SHOWN_LENGTHS if length <= subject.shape.longest)})
    return DpoPlan(
        asked=asked,
        settings=_decided(asked, [each.opened for each in samples], choice),
        subject=subject,
        samples=samples,
        report=report(pairs, max_length=budget.max_length, eos_token=subject.tokenizer.eos_token),
        choice=choice,
        gpu=gpu,
        table=tuple(calculator.budget(budget.quant, length, budget.batch_size) for length in lengths),
        seconds_per_pair=seconds_per_pair(subject.shape, gpu, _mean_tokens(pairs, budget.max_length)),
    )


def describe(plan: DpoPlan) -> Iterator[str]:
    """Yields the plan as lines of text."""
    settings, budget = plan.settings, plan.choice.budget
    yield f"model      {plan.subject.label}"
    for each in plan.samples:
        yield f"data       {_described(each)}"
    tokens = plan.report.tokens
    yield f"pairs      half have up to {tokens[0.5]:,} tokens, 99 % up to {tokens[0.99]:,}, the longest {tokens[1.0]:,}"
    yield f"GPU        {plan.gpu.name}, {gigabytes(plan.gpu.total_bytes)}" + ("" if plan.gpu.found else " (assumed)")
    yield (
        f"training   {_weights(budget)}, LoRA r={settings.lora.r}, {settings.training.optimizer}, "
        f"{budget.max_length:,} tokens, {budget.batch_size} x {plan.choice.grad_accumulation} pairs a step, "
        f"learning rate {settings.training.learning_rate:g}, beta {settings.loss.beta:g}"
    )
    yield f"memory     {gigabytes(budget.total)} of {gigabytes(plan.choice.available)}: {_parts(budget)}"
    yield f"           {', '.join(f'{each.max_length:,} tokens {gigabytes(each.total)}' for each in plan.table)}"
    yield f"time       {_time(plan)}"
    for sentence in notes(plan):
        yield f"note       {sentence}"


def notes(plan: DpoPlan) -> Sequence[str]:
    """Returns what the reader should know before starting, one sentence each."""
    of_data = [f"{each.opened.source.path}: {note}" for each in plan.samples for note in each.notes]
    gated = [f"{each.opened.source.path} is gated" for each in plan.samples if each.opened.gated]
    unlicensed = [
        f"{each.opened.source.path} states no licence"
        for each in plan.samples
        if each.opened.licence is None and not each.opened.is_local
    ]
    dropout = ["TRL switches dropout off in DPO, so lora.dropout has no effect"] if plan.settings.lora.dropout else []
    of_machine = (
        ["This machine has no GPU with CUDA, without which a model of this size is not trained"]
        if not plan.gpu.found and plan.subject.shape.parameters > MOST_PARAMETERS_ON_CPU
        else []
    )
    of_pairs = (*plan.report.warnings, *of_data, *gated, *unlicensed)
    return (*plan.choice.reasons, *of_machine, *of_pairs, *dropout, *plan.subject.notes)


def as_data(plan: DpoPlan) -> dict[str, Any]:
    """Returns the plan as JSON can say it."""
    budget = plan.choice.budget
    return {
        "model": plan.subject.label,
        "datasets": [
            {
                "path": each.opened.source.path,
                "revision": each.opened.sha,
                "split": each.opened.split,
                "license": each.opened.licence,
                "rows_left_out": dict(each.problems),
            }
            for each in plan.samples
        ],
        "tokens": {f"{share:g}": tokens for share, tokens in plan.report.tokens.items()},
        "gpu": {"name": plan.gpu.name, "bytes": plan.gpu.total_bytes, "found": plan.gpu.found},
        "quant": budget.quant,
        "max_length": budget.max_length,
        "batch_size": budget.batch_size,
        "grad_accumulation": plan.choice.grad_accumulation,
        "bytes": {"total": budget.total, "available": plan.choice.available, "tensors": budget.tensors},
        "bytes_by_length": {str(each.max_length): each.total for each in plan.table},
        "seconds_per_pair": plan.seconds_per_pair,
        "notes": list(notes(plan)),
    }


def _tokenised(samples: Sequence[Sample], tokenizer: Any) -> list[TokenisedPair]:
    pairs = []
    for each in samples:
        try:
            check_tokenizer(tokenizer, each.pairs[0])
            pairs += [tokenised(pair, tokenizer) for pair in each.pairs]
        except DataError as error:
            raise DataError(f"{each.opened.source.path}: {error}", hint=error.hint) from None
    return pairs


def _decided(settings: DpoSettings, opened: Sequence[OpenedDataset], choice: Choice) -> DpoSettings:
    budget = choice.budget
    return replace(
        settings,
        datasets=tuple(_pinned(each) for each in opened),
        memory=replace(settings.memory, quant=budget.quant),
        result=settings.result if budget.quant == "nf4" else replace(settings.result, fold_base="original"),
        training=replace(
            settings.training,
            max_length=budget.max_length,
            batch_size=budget.batch_size,
            grad_accumulation=choice.grad_accumulation,
        ),
    )


def _pinned(opened: OpenedDataset) -> DatasetSource:
    source = replace(opened.source, split=opened.split)
    return source if opened.is_local else replace(source, revision=opened.sha)


def _mean_tokens(pairs: Sequence[TokenisedPair], max_length: int) -> float:
    return sum(min(pair.tokens, max_length) for pair in pairs) / len(pairs)


def _described(each: Sample) -> str:
    opened = each.opened
    at = "" if opened.is_local else f"@{opened.sha[:7]}, split {opened.split}, licence {opened.licence or 'not stated'}"
    left_out = "".join(f"; {count:,} of {each.rows:,} rows: {reason}" for reason, count in each.problems.items())
    return f"{opened.source.path}{at}{left_out}"


def _weights(budget: Budget) -> str:
    return "QLoRA (NF4)" if budget.quant == "nf4" else "LoRA on bf16 weights"


def _parts(budget: Budget) -> str:
    parts = {
        "weights": budget.weights,
        "adapter and optimizer": budget.adapter,
        "activations": budget.checkpoints + budget.layer,
        "CUDA and fragmentation": budget.overhead,
    }
    return ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items())


def _time(plan: DpoPlan) -> str:
    if plan.seconds_per_pair is None:
        return f"not known for {plan.gpu.name}"
    minutes = 1000 * plan.seconds_per_pair / 60
    how_long = "at most 2 minutes" if minutes < 2 else f"about {minutes:.0f} minutes"
    return (
        f"{how_long} for 1,000 pairs, if the GPU does {UTILISATION:.0%} of the "
        f"{plan.gpu.peak_tflops:g} TFLOP/s of its data sheet and a pair costs {FORWARD_EQUIVALENTS} forward passes"
    )
