from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from hubmerge.trainer.data_checks import tokenised
from hubmerge.trainer.order import in_training_order
from hubmerge.trainer.settings import LOSSES, Training
from tests.trainer.tokenizers_made import CHATML, NO_SYSTEM, character_tokenizer

MAX_LENGTH = 60


def pairs(*, chat: bool) -> list[dict[str, Any]]:
    draw = random.Random(0)
    texts = [[draw.choice("xyz ") * draw.randint(1, 50) + "." for _ in range(3)] for _ in range(20)]
    made = [dict(zip(("prompt", "chosen", "rejected"), each, strict=True)) for each in texts]
    if not chat:
        return made
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return [{part: [{"role": roles[part], "content": text}] for part, text in pair.items()} for pair in made]


def prepared_by_trl(rows: Dataset, tokenizer: Any, folder: Path) -> Dataset:
    trainer = DPOTrainer.__new__(DPOTrainer)
    trainer._tokenizer, trainer._is_vision_dataset = tokenizer, False
    args = DPOConfig(output_dir=str(folder), max_length=MAX_LENGTH, use_cpu=True, bf16=False)
    return trainer._prepare_dataset(rows, tokenizer, args, "train")


@pytest.mark.parametrize("template", [None, CHATML, NO_SYSTEM])
def test_pairs_are_counted_and_kept_as_trl_does(template: str | None, tmp_path: Path) -> None:
    tokenizer = character_tokenizer(template)
    rows = Dataset.from_list(pairs(chat=template is not None))
    training = Training(max_length=MAX_LENGTH, batch_size=1, grad_accumulation=1)
    ordered, kept = in_training_order(rows, [tokenised(pair, tokenizer) for pair in rows], training)
    theirs = prepared_by_trl(ordered, tokenizer, tmp_path)
    counted = [tokenised(pair, tokenizer) for pair in ordered]
    assert [pair.prompt for pair in counted] == [len(ids) for ids in theirs["prompt_ids"]]
    assert [pair.chosen for pair in counted] == [len(ids) for ids in theirs["chosen_ids"]]
    assert [pair.rejected for pair in counted] == [len(ids) for ids in theirs["rejected_ids"]]
    assert len(prepared_by_trl(rows, tokenizer, tmp_path)) == kept


def test_every_loss_is_one_that_trl_computes() -> None:
    described = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    assert sorted(re.findall(r"'(\w+)'", described)) == sorted(LOSSES)
