"""Memory of a DPO training before it starts, in terms that can be checked one by one, and what fits a GPU.

The terms of the activations are fitted to simulations of the real training step (scripts/simulate_dpo_memory.py);
docs/dpo.md has the comparison. No term depends on the name of an architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hubmerge.errors import BudgetError
from hubmerge.trainer.settings import OPTIMIZER_STATE_BYTES, PAIRS_PER_STEP, LoraShape, Memory, Training
from hubmerge.trainer.shape import ModelShape

GIB = 2**30

BYTES_PER_WEIGHT = {"nf4": 0.5 + 1 / 64 + 4 / (64 * 256), "none": 2.0}
"""NF4 has a byte of scale for 64 weights and, in turn, an fp32 for 256 of those."""

BF16_STATES = (7.0, 19.0)
NF4_STATES = (6.0, 11.0)
NF4_PRODUCT_STATES = (5.2, 10.6)
"""bf16 values alive for each token while one layer's backward runs, in units of (inner width, hidden width): in bf16,
where peft makes fp32 copies of the adapter's inputs; in NF4; in NF4 while a weight is dequantised for a product."""

MASK_BYTES = 6
"""The attention mask and its bf16 form, for each pair and each square of the length."""

HEAD_TILE_BYTES = 2 * 4096 * 32768
"""TRL's fused head computes logits in tiles of so many tokens and words, in bf16, whatever the vocabulary."""

HEAD_TILE_TOKENS = 4096
CONTEXT_BYTES = GIB // 2
"""CUDA context with its libraries, and the workspace of cuBLAS."""

FRAGMENTATION = 0.05
"""Of the memory that comes and goes, with expandable segments."""

DRIVER_BYTES = GIB // 2
"""What a GPU does not give to programs: 24 GiB on the box are about 23.5."""

DEFAULT_GPU_BYTES = 24 * GIB
GPU_SIZES = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141)
LENGTH_STEP = 64
SHORTEST = 128
MAX_BATCH = 8


@dataclass(frozen=True)
class Budget:
    """Bytes of a training at one length and batch size.

    Attributes:
        weights: The frozen model.
        adapter: The adapter, its gradients and the state of the optimizer.
        checkpoints: Inputs of all layers, kept for the backward pass.
        layer: The one layer whose insides are computed anew, or the head where that is larger.
        overhead: Context of CUDA, accumulators within kernels, fragmentation.
    """

    quant: str
    max_length: int
    batch_size: int
    weights: int
    adapter: int
    checkpoints: int
    layer: int
    overhead: int

    @property
    def tensors(self) -> int:
        """What the simulation counts: everything but the overhead."""
        return self.weights + self.adapter + self.checkpoints + self.layer

    @property
    def total(self) -> int:
        """What the GPU has to have."""
        return self.tensors + self.overhead


@dataclass(frozen=True)
class Choice:
    """What the budget decided.

    Attributes:
        available: Bytes that the GPU gives.
        reasons: Why, one sentence each.
    """

    budget: Budget
    grad_accumulation: int
    available: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Calculator:
    """The budget of one model with one adapter and one optimizer."""

    shape: ModelShape
    lora: LoraShape
    optimizer: str

    def budget(self, quant: str, max_length: int, batch_size: int) -> Budget:
        """Returns the memory of a training; a pair is two sequences of at most `max_length` tokens."""
        shape, tokens = self.shape, 2 * batch_size * max_length
        trained = shape.adapter_parameters(self.lora.r, self.lora.targets)
        layer = _layer_bytes(shape, tokens, quant) + MASK_BYTES * batch_size * max_length**2
        checkpoints = 2 * shape.layers * tokens * shape.hidden
        return Budget(
            quant=quant,
            max_length=max_length,
            batch_size=batch_size,
            weights=round(shape.linear_parameters * BYTES_PER_WEIGHT[quant]) + 2 * shape.other_parameters,
            adapter=round(trained * (4 + 4 + OPTIMIZER_STATE_BYTES[self.optimizer])),
            checkpoints=checkpoints,
            layer=max(layer, _head_bytes(shape, tokens)),
            overhead=CONTEXT_BYTES + 4 * tokens * shape.hidden + round(FRAGMENTATION * (checkpoints + layer)),
        )

    def longest(self, quant: str, batch_size: int, available: int) -> int:
        """Returns the longest length that fits, a multiple of `LENGTH_STEP`; 0 if none does."""
        return LENGTH_STEP * _largest(
            lambda steps: self.budget(quant, steps * LENGTH_STEP, batch_size).total <= available, 2**14
        )


def choose(calculator: Calculator, training: Training, memory: Memory, *, longest_pair: int, gpu_bytes: int) -> Choice:
    """Returns how to train within the memory of a GPU.

    Weights stay bf16 where that fits at the length that the data need, as NF4 is 9 % off; else they are quantised, and
    only then are answers cut.

    Args:
        calculator: Of the model.
        training: What is asked for; what it leaves open is chosen.
        memory: Likewise.
        longest_pair: Tokens of the longest sequence of the data.
        gpu_bytes: Memory of the GPU as it is sold.

    Raises:
        BudgetError: It does not fit; the hint names the nearest settings that do.
    """
    available = gpu_bytes - DRIVER_BYTES
    _check_context(training.max_length, calculator.shape.context)
    wanted = training.max_length or _wanted_length(longest_pair, calculator.shape.context)
    batch = training.batch_size or 1
    quants = ("none", "nf4") if memory.quant == "auto" else (memory.quant,)
    fitting = [quant for quant in quants if calculator.budget(quant, wanted, batch).total <= available]
    if fitting:
        quant, length = fitting[0], wanted
    else:
        quant = quants[-1]
        length = 0 if training.max_length else calculator.longest(quant, batch, available)
    if length < SHORTEST and not fitting:
        raise _too_large(calculator, quant, wanted, batch, gpu_bytes, available)
    batch = training.batch_size or _largest_batch(calculator, quant, length, training, available)
    budget = calculator.budget(quant, length, batch)
    accumulation = training.grad_accumulation or max(1, -(-PAIRS_PER_STEP // batch))
    return Choice(budget, accumulation, available, tuple(_reasons(calculator, budget, memory, wanted, available)))


def _check_context(max_length: int | None, context: int | None) -> None:
    if max_length is not None and context is not None and max_length > context:
        raise BudgetError(
            f"max_length is {max_length:,}, and the model reads at most {context:,} tokens",
            hint=f"The longest that it takes: `max_length: {context}`.",
        )


def _layer_bytes(shape: ModelShape, tokens: int, quant: str) -> int:
    """Returns what one layer keeps while its backward pass runs."""
    if quant == "none":
        return _states(shape, tokens, BF16_STATES)
    product = _states(shape, tokens, NF4_PRODUCT_STATES) + 2 * shape.largest_linear
    return max(_states(shape, tokens, NF4_STATES), product)


def _states(shape: ModelShape, tokens: int, widths: tuple[float, float]) -> int:
    inner, hidden = widths
    return round(2 * tokens * (inner * shape.inner + hidden * shape.hidden))


def _head_bytes(shape: ModelShape, tokens: int) -> int:
    tile = HEAD_TILE_BYTES * min(tokens, HEAD_TILE_TOKENS) // HEAD_TILE_TOKENS
    return tile + (2 + 2 + 4 + 2) * tokens * shape.hidden


def _wanted_length(longest_pair: int, context: int | None) -> int:
    rounded = -(-max(longest_pair, SHORTEST) // LENGTH_STEP) * LENGTH_STEP
    return rounded if context is None else min(rounded, context)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """Returns the largest number from 0 to `most` that fits, where every smaller one does too."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _largest_batch(calculator: Calculator, quant: str, length: int, training: Training, available: int) -> int:
    most = MAX_BATCH if training.grad_accumulation is None else PAIRS_PER_STEP // training.grad_accumulation
    batch = 1
    while 2 * batch <= most and calculator.budget(quant, length, 2 * batch).total <= available:
        batch *= 2
    return batch


def _reasons(calculator: Calculator, budget: Budget, memory: Memory, wanted: int, available: int) -> list[str]:
    reasons = []
    if memory.quant == "auto" and budget.quant == "none":
        reasons.append("bf16 weights fit, so nothing is quantised")
    elif memory.quant == "auto":
        needed = calculator.budget("none", wanted, 1).total
        reasons.append(f"bf16 weights would need {gigabytes(needed)} at {wanted:,} tokens, so they are held in NF4")
    if budget.max_length < wanted:
        reasons.append(f"the data have pairs of {wanted:,} tokens; {budget.max_length:,} is the longest that fits")
    return reasons


def _too_large(
    calculator: Calculator, quant: str, wanted: int, batch: int, gpu_bytes: int, available: int
) -> BudgetError:
    needed = calculator.budget(quant, wanted, batch).total
    held = "in NF4" if quant == "nf4" else "in bf16"
    return BudgetError(
        f"training {held} needs {gigabytes(needed)} at {wanted:,} tokens with batches of {batch}, and a GPU of "
        f"{gigabytes(gpu_bytes)} gives {gigabytes(available)}",
        hint=_nearest(calculator, quant, wanted, batch, available),
    )


def _nearest(calculator: Calculator, quant: str, wanted: int, batch: int, available: int) -> str:
    """Returns which single change makes it fit, the least harmful first."""
    if batch > 1 and calculator.budget(quant, wanted, 1).total <= available:
        return "Batches of 1 fit: `batch_size: 1`."
    if quant == "none" and calculator.budget("nf4", wanted, batch).total <= available:
        return "Quantised it fits: `quant: nf4`."
    longest = min(calculator.longest("nf4", 1, available), wanted)
    if longest >= SHORTEST:
        return f"Quantised and with batches of 1 the longest that fits is {longest:,} tokens: `max_length: {longest}`."
    needed = calculator.budget("nf4", SHORTEST, 1).total + DRIVER_BYTES
    larger = next((size for size in GPU_SIZES if size * GIB >= needed), None)
    return "No setting fits; " + (f"a GPU of {larger} GB would do." if larger else "it needs more than one GPU.")


def gigabytes(size_bytes: int) -> str:
    """Returns a size as GPUs are sold: 2**30 bytes are a GB."""
    return f"{size_bytes / GIB:.1f} GB"
