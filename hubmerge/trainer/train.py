"""The training itself: TRL's DPOTrainer with an adapter in fp32, resumable to the bit."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubmerge.errors import TrainError
from hubmerge.trainer.load import Weights, load_model, quiet, release
from hubmerge.trainer.progress import DpoProgress
from hubmerge.trainer.settings import DpoSettings, Training
from hubmerge.trainer.state import save_json
from hubmerge.trainer.watch import Watch, callback

if TYPE_CHECKING:
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

CHECKPOINTS = 10
"""Saved in the course of a training unless `save_steps` says otherwise."""

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
RESULT_FILE = "training.json"
"""What was logged; it is written last, so an adapter that has it is whole."""

_COMPLETE = ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", *ADAPTER_FILES)
"""Files of a checkpoint that can be resumed."""

History = tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class Job:
    """A training.

    Attributes:
        settings: Decided by the budget.
        rows: In the order in which they are trained on, those of later epochs included.
        pairs: Different ones among them.
        budget_bytes: What tensors may take on the GPU.
        checkpoints: Folder of the checkpoints.
        adapter: Folder of the result.
    """

    settings: DpoSettings
    weights: Weights
    tokenizer: Any
    rows: Dataset
    pairs: int
    budget_bytes: int
    checkpoints: Path
    adapter: Path
    token: str | bool | None = None


@dataclass(frozen=True)
class Trained:
    """A training that has ended.

    Attributes:
        history: What was logged, step by step.
        seconds: Of all runs that it took.
        peak_bytes: Most that tensors took on the GPU; 0 without one.
        warnings: What was noticed while it ran.
    """

    history: History
    pairs: int
    seconds: float
    hardware: str
    peak_bytes: int
    warnings: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Of the optimiser."""
        return len(self.history)


def train(job: Job, progress: DpoProgress) -> Trained:
    """Returns what a training did, having left its adapter in `job.adapter`; goes on from the last checkpoint.

    Raises:
        TrainError: It does not fit, or its numbers became no numbers.
    """
    done = job.adapter / RESULT_FILE
    if done.is_file():
        return _read(done)
    with quiet():
        trained = _finished(job, progress)
    release()
    return trained


def _finished(job: Job, progress: DpoProgress) -> Trained:
    watch = _watch(job, progress)
    began = time.monotonic()
    try:
        trainer = _trainer(job)
        trainer.add_callback(callback(watch))
        checkpoint = last_checkpoint(job.checkpoints)
        if checkpoint is not None:
            progress.say(f"Going on from step {checkpoint.name.rpartition('-')[2]}")
        _run(trainer, checkpoint)
    finally:
        seconds = _add_seconds(job.checkpoints, time.monotonic() - began)
    trained = _trained(trainer, job, watch, seconds)
    _save(trainer, job.adapter, trained)
    return trained


def steps_of(training: Training, rows: int) -> int:
    """Returns the number of steps that so many rows make, those of all epochs counted."""
    assert training.batch_size is not None
    assert training.grad_accumulation is not None
    return math.ceil(math.ceil(rows / training.batch_size) / training.grad_accumulation)


def last_checkpoint(folder: Path) -> Path | None:
    """Returns the latest checkpoint that is whole; one may have been cut off while it was written."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((path for path in found if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return all((checkpoint / name).is_file() for name in _COMPLETE)


def _watch(job: Job, progress: DpoProgress) -> Watch:
    training = job.settings.training
    total = steps_of(training, len(job.rows))
    return Watch(
        beta=job.settings.loss.beta,
        warmup_steps=round(training.warmup * total),
        total=total,
        budget_bytes=job.budget_bytes,
        progress=progress,
    )


def _trainer(job: Job) -> DPOTrainer:
    """Returns the trainer, its adapter in fp32.

    TRL casts the adapter of a quantised model to bf16, in which small updates are lost; and a checkpoint is loaded in
    fp32, so that a resumed run would differ from one that was not interrupted.
    """
    import torch
    from peft import LoraConfig
    from transformers import PrinterCallback, set_seed

    settings = job.settings
    set_seed(settings.training.seed)
    model = load_model(job.weights, quant=settings.memory.quant, precision=settings.training.precision, token=job.token)
    lora = settings.lora
    targets: Any = "all-linear" if lora.targets == ("all-linear",) else list(lora.targets)
    alpha: Any = lora.alpha  # peft's annotation says int, and any number does
    peft_config = LoraConfig(
        r=lora.r, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    trainer = _quiet_trainer()(
        model=model,
        ref_model=None,
        args=_config(job),
        train_dataset=job.rows,
        processing_class=job.tokenizer,
        peft_config=peft_config,
    )
    trainer.remove_callback(PrinterCallback)
    assert trainer.model is not None
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return trainer


def _quiet_trainer() -> type[DPOTrainer]:
    """Returns TRL's trainer without its telemetry and without a card at each checkpoint; ours is written at the end."""
    from trl.trainer.dpo_trainer import DPOTrainer

    class QuietTrainer(DPOTrainer):
        def _send_telemetry(self) -> None:
            """Nothing is sent."""

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """No card."""

    return QuietTrainer


def _config(job: Job) -> DPOConfig:
    import torch
    from trl.trainer.dpo_config import DPOConfig

    training, loss, cuda = job.settings.training, job.settings.loss, torch.cuda.is_available()
    assert training.batch_size is not None
    assert training.grad_accumulation is not None
    total = steps_of(training, len(job.rows))
    return DPOConfig(
        output_dir=str(job.checkpoints),
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.grad_accumulation,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        max_length=training.max_length,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup,
        num_train_epochs=1,
        max_steps=total,
        optim=training.optimizer,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        data_seed=training.seed,
        train_sampling_strategy="sequential",
        bf16=training.precision == "bf16",
        fp16=training.precision == "fp16",
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        loss_type=list(loss.types),
        loss_weights=list(loss.weights) or None,
        beta=loss.beta,
        label_smoothing=loss.label_smoothing,
        save_steps=training.save_steps or max(1, total // CHECKPOINTS),
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=training.report_to,
        disable_tqdm=True,
    )


def _run(trainer: DPOTrainer, checkpoint: Path | None) -> None:
    import torch

    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except torch.cuda.OutOfMemoryError as error:
        raise TrainError(
            "the GPU's memory was not enough for a step, against the budget's forecast",
            hint="State less of it (--vram), a shorter --max-length, or end what else uses the GPU.",
        ) from error


def _trained(trainer: DPOTrainer, job: Job, watch: Watch, seconds: float) -> Trained:
    import torch

    cuda = torch.cuda.is_available()
    return Trained(
        history=tuple(log for log in trainer.state.log_history if "loss" in log),
        pairs=job.pairs,
        seconds=seconds,
        hardware=torch.cuda.get_device_name(0) if cuda else "CPU",
        peak_bytes=torch.cuda.max_memory_allocated() if cuda else 0,
        warnings=tuple(watch.warnings),
    )


def _save(trainer: DPOTrainer, folder: Path, trained: Trained) -> None:
    trainer.save_model(str(folder))
    save_json(folder / RESULT_FILE, asdict(trained))


def _read(path: Path) -> Trained:
    found = json.loads(path.read_text())
    return Trained(**{**found, "history": tuple(found["history"]), "warnings": tuple(found["warnings"])})


def _add_seconds(folder: Path, seconds: float) -> float:
    """Adds to the time that earlier runs of this training took, and returns the sum."""
    path = folder / "seconds.json"
    total = seconds + (float(json.loads(path.read_text())) if path.is_file() else 0.0)
    save_json(path, total)
    return total
