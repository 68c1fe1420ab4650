"""The GPU of this machine, and how fast a training may run on one; every figure is an assumption that is printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hubmerge.errors import TrainError
from hubmerge.trainer.budget import DEFAULT_GPU_BYTES, GIB
from hubmerge.trainer.shape import ModelShape

PEAK_TFLOPS: Mapping[str, float] = {
    "RTX 3090": 71,
    "RTX 4090": 165,
    "RTX 5090": 210,
    "RTX A6000": 155,
    "A10": 125,
    "L4": 121,
    "L40S": 362,
    "A100": 312,
    "H100": 989,
    "H200": 989,
}
"""Of dense products of bf16 matrices added up in fp32, by the makers' data sheets."""

ASSUMED_CARD = "RTX 3090"
UTILISATION = 0.4
"""Share of the peak that training of 7B models reaches; a guess that was not measured with this program."""

FORWARD_EQUIVALENTS = 4
"""The reference, the policy, the policy once more for its backward pass, and the gradients of the activations."""


MOST_PARAMETERS_ON_CPU = 500_000_000
"""A training without a GPU of more than this would take weeks."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, or the one that is assumed where there is none.

    Attributes:
        total_bytes: As it is sold; see `budget.DRIVER_BYTES`.
        found: Whether this machine has it.
    """

    name: str
    total_bytes: int
    found: bool

    @property
    def peak_tflops(self) -> float | None:
        """What its data sheet says; None for a card that is not in the table."""
        names = sorted(PEAK_TFLOPS, key=len, reverse=True)
        return next((PEAK_TFLOPS[name] for name in names if name in self.name), None)


def find_gpu(vram_bytes: int | None = None) -> Gpu:
    """Returns the first GPU of this machine, with the memory that is asked for in place of its own."""
    import torch

    if not torch.cuda.is_available():
        return Gpu(ASSUMED_CARD, vram_bytes or DEFAULT_GPU_BYTES, found=False)
    properties = torch.cuda.get_device_properties(0)
    whole = -(-properties.total_memory // GIB) * GIB  # 23.7 GiB are told of a card with 24
    return Gpu(properties.name, vram_bytes or whole, found=True)


def check_machine(shape: ModelShape, precision: str) -> None:
    """Raises TrainError if this machine cannot train such a model in a human time, whatever its memory."""
    import torch

    if not torch.cuda.is_available():
        if shape.parameters > MOST_PARAMETERS_ON_CPU:
            raise TrainError(
                f"there is no GPU with CUDA here, and the model has {shape.parameters / 1e9:.1f} billion parameters",
                hint="Run it on a machine with one; --plan says how large it has to be.",
            )
        if precision == "fp16":
            raise TrainError("training in fp16 needs a GPU with CUDA", hint="Leave out `precision: fp16`.")
        return
    if torch.cuda.device_count() > 1:
        raise TrainError(
            f"{torch.cuda.device_count()} GPUs are visible, and a tuning runs on one",
            hint="Choose it: CUDA_VISIBLE_DEVICES=0 hubmerge dpo ...",
        )
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TrainError(
            f"the {torch.cuda.get_device_name(0)} does not compute in bf16", hint="Write `training: {precision: fp16}`."
        )


def seconds_per_pair(shape: ModelShape, gpu: Gpu, tokens: float) -> float | None:
    """Returns how long a pair of two sequences of so many tokens takes; None for a card of unknown speed."""
    if gpu.peak_tflops is None:
        return None
    flops = 2 * shape.linear_parameters * 2 * tokens * FORWARD_EQUIVALENTS
    return flops / (gpu.peak_tflops * 1e12 * UTILISATION)
