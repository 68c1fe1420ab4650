from __future__ import annotations

import pytest
from transformers import LlamaConfig

from hubmerge.trainer.settings import LoraShape
from scripts.simulate_dpo_memory import predicted, simulated_peak

SMALL = LlamaConfig(
    hidden_size=1024,
    intermediate_size=3584,
    num_hidden_layers=2,
    num_attention_heads=16,
    num_key_value_heads=4,
    vocab_size=2000,
)


@pytest.mark.parametrize("quant", ["nf4", "none"])
def test_budget_is_within_five_per_cent_of_what_the_training_step_holds(quant: str) -> None:
    lora = LoraShape(r=8)
    simulated = simulated_peak(SMALL, quant=quant, tokens=2048, batch_size=2, lora=lora)
    budget = predicted(SMALL, quant=quant, tokens=2048, batch_size=2, lora=lora)
    assert budget.tensors == pytest.approx(simulated, rel=0.05)
