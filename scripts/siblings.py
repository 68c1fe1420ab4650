"""Small real language models that share a base, trained on the spot: something worth merging, without a download.

The base learns three letter puzzles together and stops half way. Each tuned sibling goes on with one puzzle alone:
it masters that one and does not improve, or gets worse, on the others. Merging the siblings gives one model that is
better over all puzzles than the base and than every sibling.

    python scripts/siblings.py FOLDER      writes base, reverse, sort and swap below FOLDER
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from types import MappingProxyType

import torch
from huggingface_hub import ModelCardData
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def swap_neighbours(word: str) -> str:
    """Returns `word` with the letters of every pair exchanged: badcfe for abcdef."""
    return "".join(word[start : start + 2][::-1] for start in range(0, len(word), 2))


LETTERS = "abcdefghij"
WORD_LENGTH = 6
TASKS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "reverse": lambda word: word[::-1],
        "sort": lambda word: "".join(sorted(word)),
        "swap": swap_neighbours,
    }
)

SPECIAL_TOKENS = ("<unk>", "<pad>", "<s>", "</s>", "<user>", "<assistant>")
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<' + message.role + '>' + message.content }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

BATCH = 64
WARMUP_STEPS = 20
# Skill comes within some fifty steps, at a step that differs by machine: the base is stopped by its skill instead.
BASE_SKILL = 0.5
BASE_MAX_STEPS = 400
STEPS_BETWEEN_EXAMS = 10


@dataclass(frozen=True)
class Example:
    """One puzzle and its solution, such as `reverse: abcdef` and `fedcba`."""

    question: str
    answer: str


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train: linear warm-up, then constant, or linearly down to zero at `steps`."""

    steps: int
    learning_rate: float
    decay: bool

    def rate(self, step: int) -> float:
        """Returns the learning rate of one step, counted from 0."""
        remaining = 1 - step / self.steps if self.decay else 1.0
        return self.learning_rate * min(1.0, (step + 1) / WARMUP_STEPS) * remaining


# Measured on six seeds, mean accuracy over the three puzzles: base 0.51 to 0.70, best sibling 0.69 to 0.83. Above that
# best sibling come the average, TIES (density 0.8) and DARE-linear (density 0.7) merges of the three by 0.06 to 0.17,
# and the slerp of reverse and sort by 0.07 to 0.14. Sixty steps take each sibling above 0.95 on its own puzzle; twice
# the rate drives them so far apart that task vectors no longer add up.
BASE_SCHEDULE = Schedule(steps=BASE_MAX_STEPS, learning_rate=3e-3, decay=False)
TUNE_SCHEDULE = Schedule(steps=60, learning_rate=5e-4, decay=True)


def draw_examples(tasks: Sequence[str], *, seed: int) -> Iterator[Example]:
    """Yields random puzzles without end, taking `tasks` in turn.

    There are a million words, so that another seed draws words that training has hardly met.
    """
    generator = random.Random(seed)
    for task in cycle(tasks):
        word = "".join(generator.choices(LETTERS, k=WORD_LENGTH))
        yield Example(question=f"{task}: {word}", answer=TASKS[task](word))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer with one token for each letter and one for each task's name; it has a chat template."""
    tokens = [*SPECIAL_TOKENS, *(f"{task}: " for task in TASKS), *LETTERS]
    backend = Tokenizer(models.WordLevel({token: row for row, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("[a-z]+: |."), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT_TEMPLATE,
    )


def new_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlamaForCausalLM:
    """Returns an untrained Llama of 0.35 M parameters in 8 layers, and leaves the global random state as it was."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        # Larger than the usual 0.02: at this width the puzzles are learnt in a third of the steps.
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def make_base(seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Returns a model trained on all tasks until it solves about half of each, and its tokenizer."""
    tokenizer = make_tokenizer()
    model = new_model(tokenizer, seed=seed)
    with one_thread():
        for step in train(model, tokenizer, tuple(TASKS), BASE_SCHEDULE, seed=seed):
            if step % STEPS_BETWEEN_EXAMS == 0 and _mean_accuracy(model, tokenizer) >= BASE_SKILL:
                break
    return model, tokenizer


def tune(
    base: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    task: str,
    *,
    seed: int,
    schedule: Schedule = TUNE_SCHEDULE,
) -> LlamaForCausalLM:
    """Returns a copy of `base` trained further on one task alone; `base` stays as it is."""
    model = deepcopy(base)
    with one_thread():
        for _ in train(model, tokenizer, (task,), schedule, seed=seed):
            pass
    return model


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch on one thread: the number of cores changes no bit, and a busy machine does not slow it out of bounds.

    On two idle cores a second thread saves a third of the time; on two busy ones, where the threads wait for each other
    at each of the tiny operations, it makes training nine times slower (88 s became 771 s).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tasks: Sequence[str],
    schedule: Schedule,
    *,
    seed: int,
) -> Iterator[int]:
    """Trains `model` in place with AdamW, and yields the number of steps done after each of them.

    Stop iterating to stop training. On one machine the same arguments and thread count give the same weights.
    """
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    examples = draw_examples(tasks, seed=seed)
    for step in range(schedule.steps):
        input_ids, labels = encode_for_training(tokenizer, islice(examples, BATCH))
        model.train()
        model(input_ids=input_ids, labels=labels).loss.backward()
        _apply_gradients(model, optimizer, rate=schedule.rate(step))
        yield step + 1


def encode_for_training(
    tokenizer: PreTrainedTokenizerFast, examples: Iterable[Example]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns token ids and labels, both `(examples, length)`; the loss ignores a question's labels, which are -100."""
    texts = [_prompt(tokenizer, example) + example.answer + tokenizer.eos_token for example in examples]
    input_ids = _encode(tokenizer, texts)
    labels = input_ids.clone()
    labels[:, : -(WORD_LENGTH + 1)] = -100
    return input_ids, labels


@torch.inference_mode()
def accuracy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, task: str, n: int, *, seed: int = 1_000_003
) -> float:
    """Returns the share of `n` random puzzles of one task that greedy decoding solves to the letter.

    The default seed is one that no training uses.
    """
    examples = list(islice(draw_examples((task,), seed=seed), n))
    prompts = _encode(tokenizer, [_prompt(tokenizer, example) for example in examples])
    answers = tokenizer.batch_decode(_decode_greedily(model, prompts), skip_special_tokens=True)
    return sum(answer == example.answer for answer, example in zip(answers, examples, strict=True)) / n


def save_sibling(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, *, card: str) -> Path:
    """Returns `folder`, filled with what a model repo has: bf16 weights in two shards, tokenizer, README.md."""
    deepcopy(model).bfloat16().save_pretrained(folder, max_shard_size="500KB")
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def model_card(name: str, *, task: str | None = None, base_model: str | None = None) -> str:
    """Returns the README of the base, or with a task and the base's repo id, of a tuned sibling."""
    metadata = ModelCardData(
        license="apache-2.0",
        base_model=base_model,
        base_model_relation="finetune" if base_model else None,
        library_name="transformers",
        pipeline_tag="text-generation",
    )
    skill = f"tuned to {task} words of {WORD_LENGTH} letters" if task else f"half trained on {', '.join(TASKS)}"
    return f"---\n{metadata.to_yaml()}\n---\n\n# {name}\n\nA Llama of 0.35 M parameters, {skill}.\n"


def write_family(folder: Path, *, owner: str, seed: int) -> dict[str, Path]:
    """Returns the folders of the base and of one sibling a task, by name; they name `{owner}/base` as their base."""
    base, tokenizer = make_base(seed)
    written = {"base": save_sibling(base, tokenizer, folder / "base", card=model_card("base"))}
    for task in TASKS:
        card = model_card(task, task=task, base_model=f"{owner}/base")
        written[task] = save_sibling(tune(base, tokenizer, task, seed=seed), tokenizer, folder / task, card=card)
    return written


def main() -> None:
    """Writes the family where the command line says."""
    parser = argparse.ArgumentParser(description="Train a tiny base and its tuned siblings, and save them.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--owner", default="local", help="namespace of the base's repo in the cards")
    parser.add_argument("--seed", type=int, default=4)
    arguments = parser.parse_args()
    for name, folder in write_family(arguments.folder, owner=arguments.owner, seed=arguments.seed).items():
        print(f"{name}: {folder}")


def _prompt(tokenizer: PreTrainedTokenizerFast, example: Example) -> str:
    messages = [{"role": "user", "content": example.question}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> torch.Tensor:
    """Returns token ids `(texts, length)`; texts of one kind are equally long, so there is no padding."""
    return torch.tensor(tokenizer(list(texts)).input_ids)


def _decode_greedily(model: LlamaForCausalLM, prompts: torch.Tensor) -> torch.Tensor:
    """Returns the ids after the prompts, `(prompts, at most WORD_LENGTH + 1)`."""
    model.train(mode=False)
    ids = model.generate(  # type: ignore[misc]  # the mixin's self type has members that the model declares otherwise
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=WORD_LENGTH + 1, do_sample=False
    )
    return ids[:, prompts.shape[1] :]


def _apply_gradients(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, *, rate: float) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def _mean_accuracy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    return math.fsum(accuracy(model, tokenizer, task, BATCH) for task in TASKS) / len(TASKS)


if __name__ == "__main__":
    main()
