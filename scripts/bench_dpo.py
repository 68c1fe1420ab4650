"""Measures the memory of DPO training steps on a GPU beside the budget, with the GPU capped to a smaller one.

    python scripts/bench_dpo.py --gpu-gb 24 --model-dir /scratch/random-7b --out bench-dpo.json

It makes a Mistral-7B with random weights on the spot: right sizes, no meaning. Each case is a process of its own with
three caps: a share of the memory for the allocator, a second process that holds the rest of the GPU, and the memory
of the whole GPU sampled from outside while it runs. One case is over the budget on purpose and has to fail, or the cap
does not work. It needs a CUDA GPU larger than the one that it plays; without one it says so and does nothing.
Speed on another card follows from none of this.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import torch
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback

from hubmerge.trainer.budget import DRIVER_BYTES, GIB, Calculator
from hubmerge.trainer.settings import LoraShape
from hubmerge.trainer.shape import shape_of
from hubmerge.weights.checkpoint import open_checkpoint
from hubmerge.weights.reference import ModelRef

LENGTHS = (1024, 1536, 2048, 4096, 8192)
OVER_BUDGET_TOKENS = 24_000
STEPS = 3
SAMPLE_SECONDS = 0.05
VOCABULARY = 32_000


@dataclass(frozen=True)
class Case:
    """A training to measure.

    Attributes:
        plain: As TRL sets it up by itself: the adapter in bf16 and 32-bit Adam.
    """

    quant: str
    tokens: int
    plain: bool = False

    @property
    def optimizer(self) -> str:
        """Its name in TRL and in the budget."""
        return "adamw_torch" if self.plain else "adamw_8bit"


CASES = (
    *(Case("nf4", tokens) for tokens in LENGTHS),
    *(Case("nf4", tokens, plain=True) for tokens in LENGTHS),
    Case("none", 2048),
    Case("nf4", OVER_BUDGET_TOKENS),
)


def main() -> int:
    arguments = _arguments()
    if not torch.cuda.is_available():
        print("There is no CUDA GPU here, so nothing was measured; scripts/simulate_dpo_memory.py needs none.")
        return 0
    if arguments.case:
        measured = run_case(Case(**json.loads(arguments.case)), arguments.model_dir, arguments.gpu_gb)
        print(json.dumps(measured))
        return 0
    if not (arguments.model_dir / "config.json").exists():
        make_model(arguments.model_dir)
    results = [measure(case, arguments.model_dir, arguments.gpu_gb) for case in CASES]
    arguments.out.write_text(json.dumps({"gpu": torch.cuda.get_device_name(0), "cases": results}, indent=2))
    Console().print(table(results, torch.cuda.get_device_name(0), arguments.gpu_gb))
    return 0 if all(each["finished"] == fits(each, arguments.gpu_gb) for each in results) else 1


def fits(result: dict[str, Any], gpu_gb: int) -> bool:
    """Returns whether the budget says that a case fits the GPU that is played."""
    return bool(result["predicted_total"] <= gpu_gb * GIB - DRIVER_BYTES)


def make_model(folder: Path) -> None:
    """Writes a Mistral-7B of random bf16 weights, made on the GPU, and a tokenizer of as many numbered words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedTokenizerFast

    with torch.device("cuda"):
        config = MistralConfig(sliding_window=None, vocab_size=VOCABULARY)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    torch.cuda.empty_cache()
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{n}": n for n in range(3, VOCABULARY)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)


def measure(case: Case, model_dir: Path, gpu_gb: int) -> dict[str, Any]:
    """Returns what a case used, run in a process of its own beside the ballast."""
    command = [sys.executable, __file__, "--model-dir", str(model_dir), "--gpu-gb", str(gpu_gb)]
    idle = _used_bytes()
    with ballast(gpu_gb):
        held = _used_bytes()
        process = subprocess.Popen([*command, "--case", json.dumps(asdict(case))], stdout=subprocess.PIPE, text=True)
        peak = held
        while process.poll() is None:
            peak = max(peak, _used_bytes())
            time.sleep(SAMPLE_SECONDS)
        assert process.stdout is not None
        printed = process.stdout.read().strip().splitlines()
    inside = json.loads(printed[-1]) if process.returncode == 0 and printed else {}
    finished = process.returncode == 0
    device = {"device_peak": peak - held, "idle": idle, "finished": finished}
    return {**asdict(case), **inside, **device, **predicted(case, model_dir)}


def predicted(case: Case, model_dir: Path) -> dict[str, int]:
    """Returns the budget of a case."""
    shape = shape_of(open_checkpoint(ModelRef(str(model_dir.resolve()))))
    budget = Calculator(shape, LoraShape(), case.optimizer).budget(case.quant, case.tokens, 1)
    return {"predicted_tensors": budget.tensors, "predicted_total": budget.total}


@contextmanager
def ballast(gpu_gb: int) -> Iterator[None]:
    """Holds what the GPU has beyond the size that is played, in another process, so that a shortage is a real one.

    Optimizers with paged state must not run beside it: managed memory beyond what is free can hang a GPU.
    """
    code = (
        "import sys, torch; free, _ = torch.cuda.mem_get_info(); "
        f"held = torch.empty(max(0, free - {gpu_gb * GIB - DRIVER_BYTES}), dtype=torch.uint8, device='cuda'); "
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        holder.stdout.readline()
        yield
    finally:
        holder.stdin.close()
        holder.wait()


def run_case(case: Case, model_dir: Path, gpu_gb: int) -> dict[str, float]:
    """Trains a few steps under the allocator's cap and returns the peaks that the allocator saw, and the speed."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (gpu_gb * GIB - DRIVER_BYTES) / total))
    # A 3090 takes the memory-efficient kernel where there is a mask.
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    trainer = _trainer(case, model_dir)
    load_peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return {
        "tokens_per_second": tokens_of(case) / clock.seconds_per_step,
        "load_peak": load_peak,
        "allocated_peak": torch.cuda.max_memory_allocated(),
        "reserved_peak": torch.cuda.max_memory_reserved(),
    }


class Clock(TrainerCallback):
    """Takes the time of every step but the first, which compiles and allocates."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Takes the time once the GPU is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._ends.append(time.monotonic())

    @property
    def seconds_per_step(self) -> float:
        """Of the steps after the first, of which there has to be one."""
        return (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)


def tokens_of(case: Case) -> int:
    """Returns the tokens of both sequences of a pair, without padding."""
    prompt, chosen, rejected = (len(text.split()) for text in _pair(case.tokens).values())
    return 2 * prompt + chosen + rejected


def _trainer(case: Case, model_dir: Path) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, BitsAndBytesConfig
    from trl import DPOConfig, DPOTrainer

    settings = DPOConfig(
        output_dir=str(model_dir / "run"),
        max_length=case.tokens,
        per_device_train_batch_size=1,
        max_steps=STEPS,
        save_strategy="no",
        report_to="none",
        optim=case.optimizer,
        model_init_kwargs={"dtype": "bfloat16"},
    )
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    trainer = DPOTrainer(
        str(model_dir),
        args=settings,
        train_dataset=Dataset.from_list([_pair(case.tokens) for _ in range(STEPS)]),
        processing_class=AutoTokenizer.from_pretrained(model_dir),
        quantization_config=quantisation if case.quant == "nf4" else None,
        peft_config=LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    if not case.plain:
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return trainer


def _pair(tokens: int) -> dict[str, str]:
    """Returns a pair of unequal lengths, so that there is a mask, as in real data."""
    prompt = " ".join(f"w{3 + n}" for n in range(tokens // 4))
    return {
        "prompt": prompt,
        "chosen": " " + " ".join(f"w{100 + n}" for n in range(tokens - tokens // 4)),
        "rejected": " " + " ".join(f"w{200 + n}" for n in range(tokens // 2)),
    }


def _used_bytes() -> int:
    """Returns the memory in use on the whole GPU, by every process."""
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def table(results: list[dict[str, Any]], gpu: str, gpu_gb: int) -> Table:
    """Returns predicted and measured memory side by side, in GiB; the error is that of the predicted tensors."""
    made = Table(title=f"{gpu}, capped to {gpu_gb} GB")
    peaks = ("predicted tensors", "allocated", "error", "reserved", "predicted total", "whole GPU")
    for column in ("weights", "tokens", "set up", *peaks, "tokens/s"):
        made.add_column(column, justify="right")
    for each in results:
        made.add_row(
            each["quant"],
            f"{each['tokens']:,}",
            "plain TRL" if each["plain"] else "hubmerge",
            f"{each['predicted_tensors'] / GIB:.2f}",
            *(_measured(each) if each["finished"] else ("failed", "", "")),
            f"{each['predicted_total'] / GIB:.2f}",
            f"{each['device_peak'] / GIB:.2f}",
            f"{each['tokens_per_second']:,.0f}" if each["finished"] else "",
        )
    return made


def _measured(result: dict[str, Any]) -> tuple[str, str, str]:
    allocated, reserved = result["allocated_peak"], result["reserved_peak"]
    error = result["predicted_tensors"] / allocated - 1
    return f"{allocated / GIB:.2f}", f"{error:+.1%}", f"{reserved / GIB:.2f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu-gb", type=int, default=24, help="the GPU to play")
    parser.add_argument("--model-dir", type=Path, default=Path("random-7b"), help="made if it is not there, 15 GB")
    parser.add_argument("--out", type=Path, default=Path("bench-dpo.json"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
