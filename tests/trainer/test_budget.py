from __future__ import annotations

import pytest

from hubmerge.errors import BudgetError
from hubmerge.trainer.budget import GIB, Calculator, Choice, choose
from hubmerge.trainer.gpu import Gpu, find_gpu, seconds_per_pair
from hubmerge.trainer.settings import LoraShape, Memory, Training
from hubmerge.trainer.shape import ModelShape


def llama_like(*, hidden: int, inner: int, layers: int, keys: int, vocab: int) -> ModelShape:
    parts = {
        "q_proj": (hidden, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, hidden),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "down_proj": (hidden, inner),
    }
    linears = {f"model.layers.{n}.{name}": size for n in range(layers) for name, size in parts.items()}
    other = 2 * vocab * hidden + (2 * layers + 1) * hidden
    return ModelShape(linears, other, layers=layers, hidden=hidden, inner=inner, vocabulary=vocab, context=32768)


MISTRAL_7B = llama_like(hidden=4096, inner=14336, layers=32, keys=1024, vocab=32000)
QWEN_32B = llama_like(hidden=5120, inner=27648, layers=64, keys=1024, vocab=152064)
LLAMA_70B = llama_like(hidden=8192, inner=28672, layers=80, keys=1024, vocab=128256)


def calculator(shape: ModelShape = MISTRAL_7B, *, r: int = 16) -> Calculator:
    return Calculator(shape, LoraShape(r=r), "adamw_8bit")


def chosen(
    shape: ModelShape = MISTRAL_7B,
    *,
    gb: int = 24,
    longest: int = 1500,
    training: Training | None = None,
    quant: str = "auto",
) -> Choice:
    return choose(
        calculator(shape),
        training or Training(),
        Memory(quant=quant),
        longest_pair=longest,
        gpu_bytes=gb * GIB,
    )


def test_weights_are_counted_to_the_byte() -> None:
    assert calculator().budget("nf4", 1024, 1).weights / GIB == pytest.approx(3.842, abs=0.001)
    assert calculator().budget("none", 1024, 1).weights / GIB == pytest.approx(13.49, abs=0.01)


def test_adapter_has_its_gradients_and_the_state_of_its_optimizer() -> None:
    parameters = MISTRAL_7B.adapter_parameters(16, ["all-linear"])
    assert parameters == 41_943_040
    assert calculator().budget("nf4", 1024, 1).adapter == round(parameters * (4 + 4 + 2.03))
    assert Calculator(MISTRAL_7B, LoraShape(), "adamw_torch").budget("nf4", 1024, 1).adapter == parameters * 16


def test_memory_grows_with_length_batch_and_rank() -> None:
    base = calculator().budget("nf4", 1024, 1).total
    assert calculator().budget("nf4", 2048, 1).total > base
    assert calculator().budget("nf4", 1024, 2).total > base
    assert calculator(r=64).budget("nf4", 1024, 1).total > base


def test_seven_billion_parameters_stay_bf16_on_24_gb() -> None:
    choice = chosen()
    assert (choice.budget.quant, choice.budget.max_length) == ("none", 1536)
    assert choice.budget.batch_size * choice.grad_accumulation == 8
    assert choice.reasons == ("bf16 weights fit, so nothing is quantised",)
    assert choice.budget.total <= choice.available


def test_smaller_card_takes_nf4_and_says_why() -> None:
    choice = chosen(gb=12)
    assert choice.budget.quant == "nf4"
    assert choice.reasons == ("bf16 weights would need 16.3 GB at 1,536 tokens, so they are held in NF4",)


def test_answers_are_cut_only_where_nothing_else_fits() -> None:
    choice = chosen(gb=8, longest=8000)
    longest = calculator().longest("nf4", 1, choice.available)
    assert choice.budget.max_length == longest < 8000
    assert choice.reasons[-1] == f"the data have pairs of 8,000 tokens; {longest:,} is the longest that fits"
    assert calculator().budget("nf4", longest + 64, 1).total > choice.available


def test_length_is_no_longer_than_the_model_can_read() -> None:
    assert chosen(gb=141, longest=100_000).budget.max_length == 32768


def test_length_beyond_what_the_model_can_read_is_refused() -> None:
    with pytest.raises(BudgetError) as error:
        chosen(training=Training(max_length=40_000))
    assert str(error.value) == "max_length is 40,000, and the model reads at most 32,768 tokens"


def test_batch_grows_while_it_fits_and_accumulation_makes_up_the_step() -> None:
    assert chosen(gb=80, longest=500).budget.batch_size == 8
    fixed = chosen(training=Training(batch_size=2))
    assert (fixed.budget.batch_size, fixed.grad_accumulation) == (2, 4)
    assert chosen(gb=80, training=Training(grad_accumulation=4)).budget.batch_size == 2


def test_model_that_fits_only_shortened_says_how_short() -> None:
    with pytest.raises(BudgetError) as error:
        chosen(QWEN_32B, training=Training(max_length=4096))
    longest = calculator(QWEN_32B).longest("nf4", 1, 24 * GIB - GIB // 2)
    assert 512 < longest < 2048
    assert str(error.value).startswith("training in NF4 needs ")
    assert str(error.value).endswith(" at 4,096 tokens with batches of 1, and a GPU of 24.0 GB gives 23.5 GB")
    assert error.value.hint == (
        f"Quantised and with batches of 1 the longest that fits is {longest:,} tokens: `max_length: {longest}`."
    )


def test_model_that_never_fits_names_the_card_that_would() -> None:
    with pytest.raises(BudgetError) as error:
        chosen(LLAMA_70B)
    assert error.value.hint == "No setting fits; a GPU of 48 GB would do."


def test_unquantised_model_that_is_too_large_is_sent_to_nf4() -> None:
    with pytest.raises(BudgetError) as error:
        chosen(quant="none", gb=16, training=Training(max_length=1024))
    assert error.value.hint == "Quantised it fits: `quant: nf4`."


def test_batch_that_is_too_large_is_sent_back_to_one() -> None:
    with pytest.raises(BudgetError) as error:
        chosen(quant="nf4", gb=12, training=Training(max_length=2048, batch_size=8))
    assert error.value.hint == "Batches of 1 fit: `batch_size: 1`."


def test_gpu_that_is_not_there_is_assumed() -> None:
    assert find_gpu(12 * GIB) == Gpu("RTX 3090", 12 * GIB, found=False)
    assert find_gpu().total_bytes == 24 * GIB


def test_time_is_told_for_known_cards_only() -> None:
    card = Gpu("NVIDIA GeForce RTX 3090", 24 * GIB, found=True)
    assert seconds_per_pair(MISTRAL_7B, card, 1536) == pytest.approx(6.0, rel=0.1)
    assert seconds_per_pair(MISTRAL_7B, Gpu("Some card", 24 * GIB, found=True), 1536) is None
