"""A tiny model that can be taught something, and preferences that teach it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from hubmerge.merge.options import MergeOptions
from hubmerge.trainer.progress import DpoStage, Step, Unseen
from hubmerge.trainer.run import DpoOptions
from hubmerge.trainer.settings import DatasetSource, DpoSettings, Evaluation, LoraShape, Memory, Result, Training
from hubmerge.weights.reference import ModelRef
from scripts import siblings

LAYERS = 2

TRAINING = Training(
    learning_rate=3e-3,
    max_steps=12,
    batch_size=4,
    grad_accumulation=1,
    max_length=32,
    optimizer="adamw_torch",
    save_steps=4,
    schedule="constant_with_warmup",
)


def write_model(folder: Path, *, seed: int = 0, steps: int = 30) -> Path:
    """Returns `folder`, filled with a tiny Llama that has begun to learn the puzzles."""
    tokenizer = siblings.make_tokenizer()
    model = siblings.new_model(tokenizer, seed=seed)
    model.model.layers = model.model.layers[:LAYERS]
    model.config.num_hidden_layers = LAYERS
    model.config.layer_types = None
    with siblings.one_thread():
        schedule = replace(siblings.TUNE_SCHEDULE, steps=steps, learning_rate=3e-3)
        for _ in siblings.train(model, tokenizer, tuple(siblings.TASKS), schedule, seed=seed):
            pass
    return siblings.save_sibling(model, tokenizer, folder, card=siblings.model_card("tiny"))


def preferences(count: int, *, seed: int = 0) -> Iterator[dict[str, str]]:
    """Yields puzzles whose preferred answer is of the first letters and whose rejected one is of the last."""
    generator = random.Random(seed)
    for example in islice(siblings.draw_examples(("reverse",), seed=seed), count):
        chosen, rejected = ("".join(generator.choices(letters, k=6)) for letters in ("abcde", "fghij"))
        yield {"prompt": example.question, "chosen": chosen, "rejected": rejected}


def write_preferences(path: Path, count: int = 120) -> Path:
    """Returns `path`, filled with preferences."""
    path.write_text("".join(json.dumps(row) + "\n" for row in preferences(count)))
    return path


def settings_for(model: Any, data: str | Path, **changes: Any) -> DpoSettings:
    """Returns a short tuning of a model; a path is a folder."""
    source = ModelRef(str(model)) if isinstance(model, Path) else model
    known = {
        "training": TRAINING,
        "lora": LoraShape(r=4, alpha=8),
        "memory": Memory(quant="nf4"),
        "evaluation": Evaluation(holdout=0.3),
        "result": Result(),
    }
    return DpoSettings(source, (DatasetSource(str(data)),), **(known | changes))


def options_in(folder: Path) -> DpoOptions:
    """Returns options that keep all work in a folder."""
    return DpoOptions(work_dir=folder, merge=MergeOptions(lineage=False))


class Heard(Unseen):
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.steps: list[Step] = []
        self.stages: list[DpoStage] = []

    def begin(self, stage: DpoStage) -> None:
        """Keeps it."""
        self.stages.append(stage)

    def step(self, step: Step) -> None:
        """Keeps it."""
        self.steps.append(step)

    def say(self, sentence: str) -> None:
        """Keeps it."""
        self.sentences.append(sentence)


def load_file(path: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a safetensors file."""
    from safetensors.torch import load_file as load

    return dict(load(path))
