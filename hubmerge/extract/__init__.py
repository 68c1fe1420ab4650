"""LoRA out: the low-rank difference of two checkpoints as an adapter in peft's format."""
